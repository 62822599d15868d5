"""Passages kept on the GPU: least recently read first to go, by bytes, and never another store's."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.exporter.files.publish import swap_directory
from glimmer_export.exporter.memory import build_store
from glimmer_export.runtime import Session
from glimmer_export.runtime.backends.tensorrt import TensorRTBackend
from glimmer_export.runtime.backends.tensorrt.passage_loader import PassageCache
from glimmer_export.runtime.contract import DeviceMemoryError
from tests.bundle_factory import write_rows
from tests.exported import CORPUS, QUESTIONS
from tests.reference_answers import assert_same_scores

IDS = [row["id"] for row in CORPUS]
ROUNDING = 64


def take(num_bytes: int):
    return SimpleNamespace(size=-(-num_bytes // ROUNDING) * ROUNDING)


@given(
    capacity=st.integers(0, 1000),
    reads=st.lists(st.tuples(st.integers(0, 9), st.sampled_from([1, 64, 100, 300, 700])), max_size=60),
)
def test_it_holds_what_a_list_of_the_last_reads_holds(capacity, reads):
    cache, model = PassageCache(capacity, take), {}
    for name, num_bytes in reads:
        key = (name, num_bytes)
        assert (cache.get(key) is not None) == (key in model)
        if key in model:
            model[key] = model.pop(key)
            assert cache.put(key, num_bytes) is None
            continue
        size = take(num_bytes).size
        if num_bytes <= capacity:
            # Room is made for what is asked before it is known what rounding adds.
            limit = capacity - num_bytes if size > capacity else capacity - size
            while sum(model.values()) > limit:
                del model[next(iter(model))]
        assert (cache.put(key, num_bytes) is not None) == (size <= capacity)
        if size <= capacity:
            model[key] = size
        assert cache.num_bytes == sum(model.values()) <= capacity
    cache.clear()
    assert cache.num_bytes == 0


def test_where_memory_is_short_it_takes_less():
    def refuse(num_bytes: int):
        raise DeviceMemoryError("GPU", expected="more", found="less", fix="none")

    cache = PassageCache(1000, refuse)
    assert cache.put("a", 10) is None
    assert cache.capacity_bytes == 500


def copied(session, cuda, passages) -> tuple[int, object]:
    cuda.copied.clear()
    answer = session.answer("w1 w2", passages=passages)
    return cuda.copied["in"], answer


@pytest.mark.parametrize("order", [None, 2])
def test_a_passage_crosses_once(glimmer, engined, gpu, order):
    cuda = gpu(order=order).cuda
    with Session.open(engined(glimmer), glimmer.store, backend="tensorrt", passage_cache_bytes=1 << 20) as session:
        first, answer = copied(session, cuda, IDS[:4])
        again, answer_again = copied(session, cuda, IDS[:4])
        shifted, answer_shifted = copied(session, cuda, [IDS[2], *IDS[4:6], IDS[0]])
        assert session.passage_cache_counts == (4 + 2, 4 + 2)
    codes = [glimmer.session.store.memory(number).codes.nbytes for number in range(6)]
    assert first - again == sum(codes[:4])
    assert shifted - again == sum(codes[4:6])
    assert answer.token_ids == answer_again.token_ids == glimmer.session.answer("w1 w2", passages=IDS[:4]).token_ids
    expected = glimmer.session.answer("w1 w2", passages=[IDS[2], *IDS[4:6], IDS[0]])
    assert answer_shifted.token_ids == expected.token_ids
    assert answer_shifted.selected == expected.selected


def test_a_small_cache_turns_over_and_stays_within_its_bytes(glimmer, engined, gpu):
    gpu(order=4)
    with Session.open(engined(glimmer), glimmer.store, backend="tensorrt", passage_cache_bytes=3000) as session:
        cache = session.graphs["decoder_step"].device._loader.cache
        for _ in range(2):
            for question in QUESTIONS:
                answer, expected = session.answer(question), glimmer.session.answer(question)
                assert (answer.token_ids, answer.selected) == (expected.token_ids, expected.selected)
                assert 0 < cache.num_bytes <= 3000


def test_the_same_passage_twice_in_a_row_of_passages(glimmer, engined, gpu):
    gpu()
    given = [IDS[3], IDS[3], IDS[7]]
    with Session.open(engined(glimmer), glimmer.store, backend="tensorrt", passage_cache_bytes=1 << 20) as session:
        for _ in range(2):
            answer, expected = session.answer("w9", passages=given), glimmer.session.answer("w9", passages=given)
            assert (answer.token_ids, answer.selected) == (expected.token_ids, expected.selected)


def test_two_stores_on_one_gpu_do_not_mix(glimmer, engined, gpu, tmp_path):
    """The same numbers stand for other passages."""
    gpu()
    write_rows(tmp_path / "corpus.jsonl", CORPUS[::-1])
    build_store(glimmer.bundle, tmp_path / "corpus.jsonl", tmp_path / "other", threads=1)
    backend = TensorRTBackend(engined(glimmer), passage_cache_bytes=1 << 20)
    with (
        Session.open(engined(glimmer), glimmer.store, backend=backend) as one,
        Session.open(engined(glimmer), tmp_path / "other", backend=backend) as other,
    ):
        for question in QUESTIONS * 2:
            for session in (one, other):
                ids = [item.passage.id for item in session.answer(question).passages]
                expected = glimmer.session.answer(question, passages=ids)
                assert session.answer(question, passages=ids).token_ids == expected.token_ids
    backend.close()


def test_another_generation_is_never_served_from_the_cache(glimmer, engined, gpu, tmp_path):
    """A store that was built anew in its place: the same numbers stand for other passages from the refresh on."""
    gpu()
    store, words = Path(shutil.copytree(glimmer.store, tmp_path / "store")), [row["text"] for row in CORPUS[::-1]]
    rows = [{**row, "text": text} for row, text in zip(CORPUS, words, strict=True)]
    build_store(glimmer.bundle, write_rows(tmp_path / "c.jsonl", rows), tmp_path / "anew", threads=1)
    with (
        Session.open(engined(glimmer), store, backend="tensorrt", passage_cache_bytes=1 << 20) as session,
        Session.open(glimmer.bundle, tmp_path / "anew", threads=1) as expected,
    ):
        for question in QUESTIONS[:3]:
            before = glimmer.session.answer(question, passages=IDS[:4])
            assert session.answer(question, passages=IDS[:4]).token_ids == before.token_ids
        swap_directory(Path(shutil.copytree(tmp_path / "anew", tmp_path / "again")), store)
        assert session.refresh() == 0
        for question in QUESTIONS[:3] * 2:
            answer, after = (opened.answer(question, passages=IDS[:4]) for opened in (session, expected))
            assert answer.token_ids == after.token_ids
            assert_same_scores(answer, after)
            assert answer.scores != glimmer.session.answer(question, passages=IDS[:4]).scores
