"""A tantivy index: what it finds, what opening it refuses, and that reading leaves it as it is."""

from __future__ import annotations

import dataclasses
import multiprocessing
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest

from glimmer_export.exporter.memory import build_store
from glimmer_export.exporter.memory.full_text import TANTIVY, write_segment
from glimmer_export.runtime.contract import MissingExtraError, OutputError, StoreError
from glimmer_export.runtime.contract.store_layout import FOLDING, SegmentEntry
from glimmer_export.runtime.retrieval.tantivy_bm25 import TantivyIndex
from glimmer_export.runtime.store import MemoryStore, Passage
from tests.bundle_factory import rewrite, tree, write_corpus
from tests.text_search import NONE_DELETED

NUM_PASSAGES = 200
NAME = "segments/00004-00000"
PASSAGES = [
    (3 * number, Passage(number, f"w{number % 7}", f"w{number % 5} engines")) for number in range(NUM_PASSAGES)
]


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """A store's folder with nothing in it but a segment, and how a manifest names that."""
    folder = tmp_path_factory.mktemp("index")
    return folder, written(folder)


@pytest.fixture(scope="module")
def tantivy_store(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tantivy")
    write_corpus(folder / "corpus.jsonl", 50)
    build_store(bundle.directory, folder / "corpus.jsonl", folder / "store", passages_per_shard=16, index=TANTIVY)
    return folder / "store"


def written(folder, passages=PASSAGES, name=NAME) -> SegmentEntry:
    return write_segment(
        folder, name, passages, first=0, num_numbers=3 * NUM_PASSAGES, folding=FOLDING, advance=lambda _: None
    )


def opened(folder, *segments: SegmentEntry) -> TantivyIndex:
    return TantivyIndex(folder, segments, NONE_DELETED)


def search(arguments):
    return opened(*arguments).search("engine w1", 9)


def test_numbers_are_those_given(index):
    hits = opened(*index).search("engine", 500)
    assert [hit.number for hit in hits] == [number for number, _ in PASSAGES]


def test_the_folder_holds_what_the_entry_names(index):
    folder, segment = index
    assert {file.path: file.sha256 for file in segment.files} == tree(folder)
    assert all(file.path.startswith(f"{NAME}/") for file in segment.files)
    assert segment.documents == (NUM_PASSAGES,) == (segment.num_passages,)


def test_opening_and_searching_write_nothing(index):
    folder, entry = index
    before = tree(folder)
    opened(folder, entry).search("engine", 3)
    assert tree(folder) == before


def test_threads_and_processes_find_the_same(index):
    expected = search(index)
    assert len(expected) == 9
    with ThreadPoolExecutor(8) as pool:
        one = opened(*index)
        assert [hits for hits in pool.map(lambda _: one.search("engine w1", 9), range(64)) if hits != expected] == []
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        assert list(pool.map(search, [index] * 4)) == [expected] * 4


@pytest.mark.parametrize(("fields", "expected"), [
    ({"num_passages": 199}, "199 passages, found 200 in 1 parts"),
    ({"documents": ()}, "200 passages, found 0 in 0 parts"),
    ({"documents": (100, 100)}, "200 passages, found 0 in 0 parts"),
    ({"num_passages": 1 << 40, "documents": (1 << 40,)}, "files of as many passages"),
    ({"num_passages": 0, "documents": (0,)}, "files of as many passages"),
])
def test_an_index_of_another_number_of_passages_is_refused(index, fields, expected):
    folder, segment = index
    with pytest.raises(StoreError, match=expected):
        opened(folder, dataclasses.replace(segment, **fields))


@pytest.mark.parametrize("damage", ["absent", "empty", "half", "changed", "unnamed"])
def test_damaged_files_are_named(index, tmp_path, damage):
    folder, segment = index
    for file in segment.files:
        store = Path(shutil.copytree(folder, tmp_path / file.sha256))
        path, others = store / file.path, tuple(other for other in segment.files if other != file)
        if damage == "absent":
            path.unlink()
        elif damage == "changed":
            path.write_bytes(b"\xff" * file.bytes)
        else:
            path.write_bytes(path.read_bytes()[: file.bytes // 2 if damage == "half" else 0])
        entry = dataclasses.replace(segment, files=others if damage == "unnamed" else segment.files)
        with pytest.raises(StoreError, match="copy the store again"):
            opened(store, entry).search("engine", 3)


def test_two_segments_of_one_name_are_refused(index):
    with pytest.raises(StoreError, match="an index of tantivy"):
        opened(*index, index[1])


def test_a_list_that_lies_beside_the_files_is_not_read(index, tmp_path):
    store = Path(shutil.copytree(index[0], tmp_path / "store"))
    (store / NAME / "meta.json").write_text('{"segments": [], "schema": [], "opstamp": 0}')
    assert opened(store, index[1]).search("engine w1", 9) == search(index)


def test_no_files_find_nothing(tmp_path):
    empty = written(tmp_path, ())
    assert (empty.files, empty.documents, empty.num_passages) == ((), (), 0)
    assert opened(tmp_path, empty).search("engine", 3) == []
    assert opened(tmp_path, empty, written(tmp_path, name="segments/00001-00000")).search("w3", 500) != []


def test_writing_again_leaves_nothing_of_before(tmp_path):
    first, second = written(tmp_path), written(tmp_path, PASSAGES[:5])
    assert set(tree(tmp_path)) == {file.path for file in second.files}
    assert {file.path for file in first.files}.isdisjoint(file.path for file in second.files)
    assert len(opened(tmp_path, second).search("engine", 9)) == 5


def test_what_tantivy_refuses_to_write_is_named(tmp_path, monkeypatch):
    import tantivy

    class Writer:
        def add_document(self, _):
            raise ValueError("An index writer was killed")

    monkeypatch.setattr(tantivy.Index, "writer", lambda *_: Writer(), raising=False)
    with pytest.raises(OutputError, match="room on the disk"):
        written(tmp_path)


def test_a_store_is_searched_by_the_engine_that_its_manifest_names(bundle, tantivy_store, store_path):
    with MemoryStore.open(tantivy_store, bundle) as store, MemoryStore.open(store_path, bundle) as other:
        assert store.manifest.index.engine == TANTIVY
        assert store.passages(range(50)) == other.passages(range(50))
        for question in ("title7", "w3 w41", "w12"):
            assert store.search(question, 5)[0].number == other.search(question, 5)[0].number


def test_changed_index_bytes_are_refused(bundle, tantivy_store, tmp_path):
    copy = shutil.copytree(tantivy_store, tmp_path / "store")
    path = next((copy / "segments").glob("*/*.idx"))
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"\.idx: expected SHA-256"):
        MemoryStore.open(copy, bundle)


def test_an_engine_of_the_future_is_refused(bundle, store_copy):
    rewrite(store_copy / "manifest.json", index={"engine": "vespa"})
    with pytest.raises(StoreError, match="expected one of fts5, tantivy"):
        MemoryStore.open(store_copy, bundle)


def test_a_device_without_tantivy_is_told_the_extra(bundle, tantivy_store, monkeypatch):
    monkeypatch.setitem(sys.modules, "tantivy", None)
    with pytest.raises(MissingExtraError, match=r"glimmer-export\[retrieval\]"):
        MemoryStore.open(tantivy_store, bundle)
