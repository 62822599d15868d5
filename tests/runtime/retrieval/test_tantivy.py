"""A tantivy index: what it finds, what opening it refuses, and that reading leaves it as it is."""

from __future__ import annotations

import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from glimmer_export.exporter.memory import build_store
from glimmer_export.exporter.memory.texts import TANTIVY, write_index
from glimmer_export.runtime.contract import IndexEntry, MissingExtraError, OutputError, StoreError
from glimmer_export.runtime.retrieval.tantivy_bm25 import TantivyIndex
from glimmer_export.runtime.store import MemoryStore, Passage
from tests.bundle_factory import rewrite, tree, write_corpus

NUM_PASSAGES = 200
PASSAGES = [
    (3 * number, Passage(number, f"w{number % 7}", f"w{number % 5} engines")) for number in range(NUM_PASSAGES)
]


def ignore(_: int) -> None: ...


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """A store's folder with nothing in it but an index, and how a manifest names that."""
    folder = tmp_path_factory.mktemp("index")
    return folder, write_index(folder, 4, PASSAGES, TANTIVY, advance=ignore)


@pytest.fixture(scope="module")
def tantivy_store(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tantivy")
    write_corpus(folder / "corpus.jsonl", 50)
    build_store(bundle.directory, folder / "corpus.jsonl", folder / "store", passages_per_shard=16, index=TANTIVY)
    return folder / "store"


def opened(folder, entry: IndexEntry, num_passages: int = NUM_PASSAGES) -> TantivyIndex:
    return TantivyIndex([folder / file.path for file in entry.files], num_passages=num_passages)


def search(arguments):
    return opened(*arguments).search("engine w1", 9)


def test_numbers_are_those_given(index):
    hits = opened(*index).search("engine", 500)
    assert [hit.number for hit in hits] == [number for number, _ in PASSAGES]


def test_the_folder_holds_what_the_entry_names(index):
    folder, entry = index
    assert entry.engine == TANTIVY
    assert {file.path: file.sha256 for file in entry.files} == tree(folder)
    assert all(file.path.startswith("index-00004/") for file in entry.files)


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


def test_an_index_of_another_number_of_passages_is_refused(index):
    with pytest.raises(StoreError, match="expected 199 passages, found 200"):
        opened(*index, num_passages=199)


@pytest.mark.parametrize("damage", ["absent", "empty", "half", "changed"])
def test_damaged_files_are_named(index, tmp_path, damage):
    folder, entry = index
    for position, file in enumerate(entry.files):
        paths = []
        for other in entry.files:
            content = (folder / other.path).read_bytes()
            path = tmp_path / str(position) / other.path.split("/")[1]
            path.parent.mkdir(exist_ok=True)
            if other is not file or damage == "changed":
                path.write_bytes(content if other is not file else b"\xff" * len(content))
            elif damage != "absent":
                path.write_bytes(content[: len(content) // 2] if damage == "half" else b"")
            if path.exists():
                paths.append(path)
        with pytest.raises(StoreError, match="copy the store again"):
            TantivyIndex(paths, num_passages=NUM_PASSAGES).search("engine", 3)


def test_no_files_are_no_index():
    with pytest.raises(StoreError):
        TantivyIndex([], num_passages=0)


def test_writing_again_leaves_nothing_of_before(tmp_path):
    first = write_index(tmp_path, 0, PASSAGES, TANTIVY, advance=ignore)
    second = write_index(tmp_path, 0, PASSAGES[:5], TANTIVY, advance=ignore)
    assert set(tree(tmp_path)) == {file.path for file in second.files}
    assert {file.path for file in first.files} != {file.path for file in second.files}
    assert len(opened(tmp_path, second, 5).search("engine", 9)) == 5


def test_what_tantivy_refuses_to_write_is_named(tmp_path, monkeypatch):
    import tantivy

    class Writer:
        def add_document(self, _):
            raise ValueError("An index writer was killed")

    monkeypatch.setattr(tantivy.Index, "writer", lambda *_: Writer(), raising=False)
    with pytest.raises(OutputError, match="room on the disk"):
        write_index(tmp_path, 0, PASSAGES, TANTIVY, advance=ignore)


def test_a_store_is_searched_by_the_engine_that_its_manifest_names(bundle, tantivy_store, store_path):
    with MemoryStore.open(tantivy_store, bundle) as store, MemoryStore.open(store_path, bundle) as other:
        assert store.manifest.index.engine == TANTIVY
        assert store.passages(range(50)) == other.passages(range(50))
        for question in ("title7", "w3 w41", "w12"):
            assert store.search(question, 5)[0].number == other.search(question, 5)[0].number


def test_changed_index_bytes_are_refused(bundle, tantivy_store, tmp_path):
    import shutil

    copy = shutil.copytree(tantivy_store, tmp_path / "store")
    path = next((copy / "index-00000").glob("*.idx"))
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"\.idx: expected SHA-256"):
        MemoryStore.open(copy, bundle)


def test_an_engine_of_the_future_is_refused(bundle, store_copy):
    rewrite(store_copy / "manifest.json", index={"engine": "vespa", "files": []})
    with pytest.raises(StoreError, match="expected one of fts5, tantivy"):
        MemoryStore.open(store_copy, bundle)


def test_a_device_without_tantivy_is_told_the_extra(bundle, tantivy_store, monkeypatch):
    monkeypatch.setitem(sys.modules, "tantivy", None)
    with pytest.raises(MissingExtraError, match=r"glimmer-export\[retrieval\]"):
        MemoryStore.open(tantivy_store, bundle)
