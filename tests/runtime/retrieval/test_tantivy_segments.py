"""Segments written apart and opened together: they rank as one index over all, and what is deleted is not found."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glimmer_export.exporter.memory import full_text
from glimmer_export.exporter.memory.full_text import TANTIVY, write_segment, write_texts_and_index
from glimmer_export.exporter.memory.texts import read_live, write_texts_part
from glimmer_export.runtime.contract import StoreError, read_store_manifest
from glimmer_export.runtime.contract.store_layout import FOLDING
from glimmer_export.runtime.passage_texts import Passage, PassageTexts
from glimmer_export.runtime.retrieval.tantivy_bm25 import TantivyIndex
from tests.bundle_factory import tree
from tests.test_golden import GOLDEN
from tests.text_search import NONE_DELETED

COUNT = 400
WORDS = np.random.default_rng(8).zipf(1.3, (COUNT, 12)) % 90
PASSAGES = [
    Passage(f"p{number}", f"w{row[0]}", " ".join(f"w{word}" for word in row[1 : 3 + number % 9]))
    for number, row in enumerate(WORDS)
]
QUESTIONS = [f"w{one} w{other} w{one + 30}" for one, other in zip(range(1, 60, 3), range(60, 1, -3), strict=True)]
CUTS = (0, 10, 20, 21, 100, 380, COUNT)


def ignore(_: int) -> None: ...


def texts_of(store, bounds):
    """Files of texts between the bounds."""
    return [
        write_texts_part(
            store, f"texts/{first:05d}-{end:05d}.sqlite", [(number, PASSAGES[number]) for number in range(first, end)],
            first=first, num_numbers=end - first,
        )
        for first, end in pairwise(bounds)
    ]


def written(store, bounds, dead=()):
    """Segments between the bounds, without the dead, which were deleted before they were written."""
    return [
        write_segment(
            store, f"segments/{first:05d}-{end:05d}",
            [(number, PASSAGES[number]) for number in range(first, end) if number not in dead],
            first=first, num_numbers=end - first, folding=FOLDING, advance=ignore,
        )
        for first, end in pairwise(bounds)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    store = tmp_path_factory.mktemp("whole")
    return TantivyIndex(store, written(store, (0, COUNT)), NONE_DELETED)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    store = tmp_path_factory.mktemp("parts")
    return store, written(store, CUTS)


@pytest.mark.parametrize("top_k", [1, 20, COUNT])
def test_segments_rank_as_one_index(whole, parts, top_k):
    index = TantivyIndex(*parts, NONE_DELETED)
    for question in QUESTIONS:
        assert index.search(question, top_k) == whole.search(question, top_k) != []


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, COUNT - 1)), st.integers(1, COUNT))
def test_what_is_deleted_is_not_found_and_all_else_in_its_order(whole, parts, dead, top_k):
    """Each score is the one that it was: a word is counted in deleted passages until their segment is written anew."""
    index = TantivyIndex(*parts, np.array(sorted(dead), np.int64))
    for question in QUESTIONS[:4]:
        live = [hit for hit in whole.search(question, COUNT) if hit.number not in dead]
        assert index.search(question, top_k) == live[:top_k]


def test_equals_of_which_most_are_deleted(tmp_path):
    """A tie goes to the lowest numbers that are there, however many lower ones are not."""
    alike = [(number, Passage(number, "", "same words")) for number in range(300)]
    segments = [
        write_segment(
            tmp_path, f"segments/{first}-0", alike[first : first + 100], first=first, num_numbers=100, folding=FOLDING,
            advance=ignore,
        )
        for first in (0, 100, 200)
    ]
    index = TantivyIndex(tmp_path, segments, np.setdiff1d(np.arange(300), [2, 150, 151, 299]))
    assert [hit.number for hit in index.search("same", 3)] == [2, 150, 151]
    assert [hit.number for hit in index.search("same", 200)] == [2, 150, 151, 299]
    assert TantivyIndex(tmp_path, segments, np.arange(300)).search("same", 3) == []


def test_segments_written_anew_rank_as_a_rebuild(tmp_path, parts):
    """Once what was deleted is in no segment, scores are those of an index that never had it."""
    dead = {3, 11, 12, 20, 99, 250, COUNT - 1}
    tombstones = np.array(sorted(dead), np.int64)
    merged = written(tmp_path, (0, 100, COUNT), dead)
    rebuilt = written(tmp_path / "rebuilt", (0, COUNT), dead)
    one, other = TantivyIndex(tmp_path, merged, tombstones), TantivyIndex(tmp_path / "rebuilt", rebuilt, NONE_DELETED)
    before = TantivyIndex(*parts, tombstones)
    for question in QUESTIONS:
        assert one.search(question, 20) == other.search(question, 20)
    assert any(before.search(question, 20) != other.search(question, 20) for question in QUESTIONS)


def test_one_segment_for_so_many_numbers(tmp_path, monkeypatch):
    """A range whose passages are all gone has a segment of none."""
    monkeypatch.setattr(full_text, "SEGMENT_PASSAGES", 100)
    monkeypatch.setattr(full_text, "PART_PASSAGES", 200)
    kept = [(number, PASSAGES[number]) for number in range(COUNT) if number % 100 < 90 and not 200 <= number < 300]
    texts, segments = write_texts_and_index(tmp_path, 3, iter(kept), COUNT - 5, TANTIVY, advance=ignore)
    assert [(part.first, part.num_numbers, part.num_passages) for part in segments] == [
        (0, 100, 90), (100, 100, 90), (200, 100, 0), (300, 95, 90),
    ]
    assert [(part.first, part.num_numbers, part.num_passages) for part in texts] == [(0, 200, 180), (200, 195, 90)]
    files = {file.path for part in segments for file in part.files} | {part.file.path for part in texts}
    assert set(tree(tmp_path)) == files
    dead = np.setdiff1d(np.arange(COUNT - 5), [number for number, _ in kept])
    assert list(read_live(lambda file: tmp_path / file.path, texts, dead)) == kept
    with pytest.raises(StoreError, match="90 passages from number 200 to below 395, not 195"):
        list(read_live(lambda file: tmp_path / file.path, texts[1:], NONE_DELETED))
    index = TantivyIndex(tmp_path, segments, NONE_DELETED)
    assert {hit.number for hit in index.search(" ".join(QUESTIONS), COUNT)} <= {number for number, _ in kept}


def test_equal_passages_give_equal_files(tmp_path):
    for name in ("one", "two"):
        written(tmp_path / name, CUTS)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_texts_are_read_by_number_and_by_id_across_files(tmp_path):
    dead = np.array([10, 20, 379], np.int64)
    live = [number for number in range(COUNT) if number not in dead]
    parts = texts_of(tmp_path, CUTS)
    texts = PassageTexts(tmp_path, parts, dead)
    assert texts.all_numbers() == live
    assert texts.passages(live[::-7]) == [PASSAGES[number] for number in live[::-7]]
    assert texts.find([f"p{number}" for number in (399, 20, 0, 21, 10)]) == [399, None, 0, 21, None]
    assert list(read_live(lambda file: tmp_path / file.path, parts, dead, 5, 25)) == [
        (number, PASSAGES[number]) for number in range(5, 25) if number not in dead
    ]
    texts.close()


@pytest.mark.parametrize("layers", [b"\x00", b"\x7f\xff", b"\x01\x86\x81\x80\x80\xa8", b"\xff"])
def test_stored_documents_of_very_many_layers_are_refused(tmp_path, layers):
    """tantivy would end the process, for memory that there is not."""
    (segment,) = written(tmp_path, (0, COUNT))
    (path,) = (tmp_path / file.path for file in segment.files if file.path.endswith(".store"))
    content = path.read_bytes()
    footer = int.from_bytes(content[-8:-4], "little")
    tail = len(content) - 8 - footer - 28
    start = int.from_bytes(content[tail + 4 : tail + 12], "little")
    assert content[start] == 0x81  # one layer
    path.write_bytes(content[:start] + layers + content[start + len(layers) :])
    with pytest.raises(StoreError, match="at most 16 layers"):
        TantivyIndex(tmp_path, [segment], NONE_DELETED)


@pytest.mark.parametrize("content", [b"", b"\0" * 40, b"\xff" * 40, b"\xff" * 7])
def test_stored_documents_that_are_none_are_refused(tmp_path, content):
    (segment,) = written(tmp_path, (0, COUNT))
    (path,) = (tmp_path / file.path for file in segment.files if file.path.endswith(".store"))
    path.write_bytes(content)
    with pytest.raises(StoreError, match="index"):
        TantivyIndex(tmp_path, [segment], NONE_DELETED)


def test_an_index_of_an_earlier_version_lists_its_own_parts(tmp_path):
    store = Path(shutil.copytree(GOLDEN / "store-tantivy", tmp_path / "store"))
    segments = read_store_manifest(store).segments
    (segment,) = segments
    assert TantivyIndex(store, segments, NONE_DELETED, folding=0).search("w58 w57 w33 w40", 3) != []
    meta = next(store / file.path for file in segment.files if file.path.endswith("meta.json"))
    content = meta.read_text()
    for changed, message in (
        (content.replace('"max_doc": 40', '"max_doc": 39'), "40 passages, found 39"),
        (content.replace('"max_doc": 40', '"max_doc": true'), "a list of whole segments"),
        (content.replace('"deletes": null', '"deletes": {}'), "a list of whole segments"),
        (content.replace('"segment_id": "', '"segment_id": "../'), "a list of whole segments"),
        ('{"segments": [3]}', "a list of whole segments"),
        ("{}", "a list of whole segments"),
        ("[", "JSON"),
    ):
        assert changed != content
        meta.write_text(changed)
        with pytest.raises(StoreError, match=message):
            TantivyIndex(store, segments, NONE_DELETED, folding=0)
