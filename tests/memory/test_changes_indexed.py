"""A store whose full-text index has files of its own: a change adds a segment to it, and readers keep theirs."""

from __future__ import annotations

import shutil

import pytest

from glimmer_export.exporter.memory import (
    append_passages,
    build_store,
    compact_store,
    delete_passages,
    repair_store,
    verify_store,
)
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import StoreError, read_store_manifest
from glimmer_export.runtime.store import MemoryStore
from tests.bundle_factory import write_rows
from tests.memory.contents import search_ids

ROWS = [{"id": f"p{index}", "title": f"t{index}", "text": f"w{index} w1 w2"} for index in range(7)]
NEW = [{"id": "p1", "title": "again", "text": "w40 w41"}, {"id": "q", "title": "added", "text": "w42 w40 w1"}]
SMALL = {"passages_per_shard": 3, "batch_tokens": 1, "index": "tantivy"}


@pytest.fixture(scope="module")
def opened(bundle):
    return Bundle.open(bundle)


@pytest.fixture(scope="module")
def built(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("indexed")
    build_store(bundle, write_rows(folder / "corpus.jsonl", ROWS), folder / "store", **SMALL)
    return folder / "store"


@pytest.fixture
def store(built, tmp_path):
    return shutil.copytree(built, tmp_path / "store")


def found(store, opened, question):
    with MemoryStore.open(store, opened) as reader:
        return sorted(name for name, _ in search_ids(reader, question))


def folders(store):
    return sorted(path.name for path in (store / "segments").iterdir())


def test_a_change_adds_a_segment_and_leaves_the_others(store, bundle, opened, tmp_path):
    with MemoryStore.open(store, opened) as before:
        append_passages(store, bundle, write_rows(tmp_path / "new.jsonl", NEW), replace=True, batch_tokens=1)
        assert found(store, opened, "w40") == ["p1", "q"]
        assert found(store, opened, "w42") == ["q"]
        delete_passages(store, ["q", "p3"])
        assert found(store, opened, "w40") == ["p1"]
        assert found(store, opened, "w3") == []
        assert sorted(name for name, _ in search_ids(before, "w1")) == [row["id"] for row in ROWS]
        assert search_ids(before, "w40") == []
        assert verify_store(store).damaged == ()
        assert folders(store) == ["00000-00000", "00001-00000"]
        compact_store(store)
        assert sorted(name for name, _ in search_ids(before, "w1")) == [row["id"] for row in ROWS]
    assert found(store, opened, "w2") == ["p0", "p2", "p4", "p5", "p6"]
    compact_store(store)
    segments = read_store_manifest(store).segments
    assert {file.path.split("/")[1] for segment in segments for file in segment.files} == set(folders(store))
    assert [(segment.first, segment.num_numbers, segment.num_passages) for segment in segments] == [(0, 9, 6)]


def test_a_damaged_index_is_named_and_written_again(store, opened):
    (segment,) = read_store_manifest(store).segments
    entry = max(segment.files, key=lambda file: file.bytes)
    path = store / entry.path
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(StoreError, match=entry.path):
        MemoryStore.open(store, opened)
    (damage,) = verify_store(store).damaged
    assert damage.path == entry.path
    assert "memory repair" in damage.fix
    assert entry.path in repair_store(store).renewed
    assert found(store, opened, "w4") == ["p4"]
    assert [row["id"] for row in ROWS] == found(store, opened, "w1")
