"""A session takes a store's newest generation, in one step, without its graphs being opened again."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier, Event, Thread

import pytest

import glimmer_export.runtime.bundle
from glimmer_export.exporter.files.publish import swap_directory
from glimmer_export.exporter.memory import append_passages, build_store, compact_store, delete_passages
from glimmer_export.runtime import ClosedError, MemoryStore, OptionError, Passage, Session, StoreError
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from tests.bundle_factory import write_rows
from tests.exported import CORPUS

WORDS = "w3 w14 w15"
NEW = [{"id": 1, "title": "w3", "text": "w14 w15 w3 w3"}, {"id": "new", "title": "w14", "text": "w15 w14"}]


class CountingBackend(OnnxRuntimeBackend):
    """Counts the graphs that are loaded, and holds questions where it is told to."""

    def __init__(self) -> None:
        super().__init__(threads=1)
        self.loaded, self.entered, self.go_on = 0, Event(), Event()
        self.go_on.set()

    def load(self, path, io):
        self.loaded += 1
        graph, backend = super().load(path, io), self

        class Waiting:
            def run(self, inputs):
                backend.entered.set()
                assert backend.go_on.wait(60)
                return graph.run(inputs)

        return Waiting()


@pytest.fixture
def store(glimmer, tmp_path) -> Path:
    return Path(shutil.copytree(glimmer.store, tmp_path / "store"))


@pytest.fixture
def new(tmp_path) -> Path:
    return write_rows(tmp_path / "new.jsonl", NEW)


def append(glimmer, store: Path, corpus: Path) -> None:
    append_passages(store, glimmer.bundle, corpus, replace=True, threads=1)


def seen(answer) -> tuple[object, ...]:
    return answer.token_ids, answer.scores, [item.passage for item in answer.passages]


def test_the_newest_generation_is_answered_from(glimmer, store, new):
    backend = CountingBackend()
    with Session.open(glimmer.bundle, store, backend=backend) as session:
        loaded, before = backend.loaded, session.answer(WORDS, 9)
        assert session.refresh() is None
        append(glimmer, store, new)
        assert seen(session.answer(WORDS, 9)) == seen(before)
        assert session.refresh() == 1
        after = session.answer(WORDS, 9)
        assert Passage(1, "w3", "w14 w15 w3 w3") in [item.passage for item in after.passages]
        assert backend.loaded == loaded
        with Session.open(glimmer.bundle, store, threads=1) as anew:
            assert seen(after) == seen(anew.answer(WORDS, 9))
        delete_passages(store, ["new"])
        assert session.refresh() == 2
        assert "new" not in [item.passage.id for item in session.answer(WORDS, 9).passages]
        assert session.refresh() is None
        # Of the generations before only the one that is served is held.
        assert compact_store(store).open == (2,)
        assert session.refresh() == 3
        assert session.answer("w1", passages=[1]).passages[0].passage.text == "w14 w15 w3 w3"


def test_questions_under_way_keep_their_generation_whose_files_are_then_let_go(glimmer, store, new):
    backend = CountingBackend()
    with Session.open(glimmer.bundle, store, backend=backend) as session, ThreadPoolExecutor(1) as pool:
        before, earlier = session.answer(WORDS, 9), session.store
        backend.entered.clear()
        backend.go_on.clear()
        under_way = pool.submit(session.answer, WORDS, 9)
        assert backend.entered.wait(60)
        append(glimmer, store, new)
        assert session.refresh() == 1
        assert earlier.passage(0)  # it is still read
        backend.go_on.set()
        assert seen(under_way.result()) == seen(before)
        with pytest.raises(ClosedError):
            earlier.passage(0)
        assert seen(session.answer(WORDS, 9)) != seen(before)


def test_a_session_that_is_closed_while_it_answers_answers(glimmer, store):
    backend = CountingBackend()
    session = Session.open(glimmer.bundle, store, backend=backend)
    expected, opened = session.answer(WORDS), session.store
    with ThreadPoolExecutor(1) as pool:
        backend.entered.clear()
        backend.go_on.clear()
        under_way = pool.submit(session.answer, WORDS)
        assert backend.entered.wait(60)
        session.close()
        with pytest.raises(ClosedError):
            session.answer(WORDS)
        backend.go_on.set()
        assert seen(under_way.result()) == seen(expected)
    with pytest.raises(ClosedError):
        opened.passage(0)


def test_threads_that_ask_meanwhile_get_one_generation_or_the_other(glimmer, store, new):
    with Session.open(glimmer.bundle, store, threads=1) as session:
        before, found, start = session.answer(WORDS, 9), [], Barrier(5)

        def ask() -> None:
            start.wait()
            found.extend(seen(session.answer(WORDS, 9)) for _ in range(12))

        threads = [Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        start.wait()
        append(glimmer, store, new)
        with ThreadPoolExecutor(3) as pool:
            refreshed = [task.result() for task in [pool.submit(session.refresh) for _ in range(3)]]
        for thread in threads:
            thread.join()
        assert sorted(refreshed, key=str) == [1, None, None]
        after = session.answer(WORDS, 9)
        assert len(found) == 48
        assert all(one in (seen(before), seen(after)) for one in found)


def test_a_store_that_was_built_anew_in_its_place(glimmer, store, tmp_path):
    build_store(glimmer.bundle, write_rows(tmp_path / "c.jsonl", NEW), tmp_path / "anew", threads=1)
    with Session.open(glimmer.bundle, store, threads=1) as session:
        swap_directory(tmp_path / "anew", store)
        assert session.refresh() == 0
        assert session.store.num_passages == 2
        assert {item.passage.id for item in session.answer(WORDS).passages} == {1, "new"}


def test_a_file_that_was_repaired_is_read_and_the_others_are_not_verified_again(glimmer, store, monkeypatch):
    digests = []
    opening = glimmer_export.runtime.bundle
    digest = opening.file_digest
    monkeypatch.setattr(opening, "file_digest", lambda path: (digests.append(path.name), digest(path))[1])
    texts = store / "passages.sqlite"
    with Session.open(glimmer.bundle, store, threads=1) as session:
        assert digests
        digests.clear()
        shutil.copy(texts, store / "again")
        (store / "again").replace(texts)
        assert session.refresh() == 0
        assert digests == ["passages.sqlite"]


def damage_manifest(store: Path) -> None:
    (store / "manifest.json").write_text("{", encoding="utf-8")


def damage_shard(store: Path) -> None:
    shard = store / "shards" / "00000.safetensors"
    (store / "other").write_bytes(shard.read_bytes()[:-1])
    (store / "other").replace(shard)


def another_checkpoint(store: Path) -> None:
    manifest = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
    (store / "other").write_text(json.dumps({**manifest, "memory_digest": "0" * 64}), encoding="utf-8")
    (store / "other").replace(store / "manifest.json")


@pytest.mark.parametrize("damage", [damage_manifest, damage_shard, another_checkpoint, shutil.rmtree])
def test_where_it_cannot_be_served_the_earlier_one_is(glimmer, store, damage):
    with Session.open(glimmer.bundle, store, threads=1) as session:
        before, opened = session.answer(WORDS), session.store
        damage(store)
        for _ in range(2):
            with pytest.raises(StoreError):
                session.refresh()
        assert session.store is opened
        assert seen(session.answer(WORDS)) == seen(before)


def test_another_codec_is_another_sessions(exported, tmp_path):
    source = exported("glimmer, codecs")
    for codec in ("fp16", "int8"):
        build_store(source.bundle, source.corpus, tmp_path / codec, codec=codec, threads=1)
    with Session.open(source.bundle, tmp_path / "fp16", threads=1) as session:
        before = session.answer(WORDS)
        swap_directory(tmp_path / "int8", tmp_path / "fp16")
        with pytest.raises(StoreError, match=r"the codec fp16, whose graphs are loaded, found int8"):
            session.refresh()
        assert seen(session.answer(WORDS, passages=[1]))[2][0].id == 1
        assert before.answer is not None


def test_a_session_without_a_store_has_none_to_refresh(glimmer):
    with Session.open(glimmer.bundle, threads=1) as session, pytest.raises(OptionError, match="a store to take"):
        session.refresh()


def test_a_store_by_itself_says_whether_there_is_a_newer_one(glimmer, store, new):
    with MemoryStore.open(store, glimmer.session.bundle) as opened:
        assert opened.newer() is None
        append(glimmer, store, new)
        with opened.newer() as newer:
            assert (newer.num_passages, opened.num_passages) == (opened.num_passages + 1, len(CORPUS))
