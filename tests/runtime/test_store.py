"""Opening a store: one test for each way in which it can be wrong; and reading it, from several threads."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

import glimmer_export.runtime.mapped_file
from glimmer_export.exporter.memory import build_store
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import STORE_SCHEMA_VERSION, ClosedError, PassageError, StoreError
from glimmer_export.runtime.store import MemoryStore
from tests.bundle_factory import make_bundle, rewrite, write_rows
from tests.runtime.conftest import NUM_PASSAGES

SHARD = "shards/00001.safetensors"


def change_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def change_manifest(store_copy, change):
    data = json.loads((store_copy / "manifest.json").read_text())
    change(data)
    rewrite(store_copy / "manifest.json", **data)


def test_a_store_of_another_checkpoint_is_refused(store_path, tmp_path):
    other = Bundle.open(make_bundle(tmp_path / "other", checkpoint="b"))
    with pytest.raises(StoreError, match=r"a store of bundle .*the checkpoint's memory encoder"):
        MemoryStore.open(store_path, other)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("memory_digest", "0" * 64), ("tokenizer_digest", "0" * 64), ("d_model", 7), ("passage_length", 99),
    ],
)
def test_a_store_that_does_not_fit_the_bundle_is_refused(bundle, store_copy, field, value):
    rewrite(store_copy / "manifest.json", **{field: value})
    with pytest.raises(StoreError, match="a store of bundle"):
        MemoryStore.open(store_copy, bundle)


@pytest.mark.parametrize("verify", [True, False])
def test_a_truncated_shard_is_refused(bundle, store_copy, verify):
    path = store_copy / SHARD
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(StoreError, match=r"00001\.safetensors: expected \d+ bytes"):
        MemoryStore.open(store_copy, bundle, verify=verify)


def test_changed_shard_bytes_are_refused(bundle, store_copy):
    change_last_byte(store_copy / SHARD)
    with MemoryStore.open(store_copy, bundle) as store:
        number = store.manifest.shards[1].end - 1
        assert store.memory(number - 1).num_tokens  # of the same shard
        for read in (store.memory, store.input_ids):
            with pytest.raises(StoreError, match=rf"00001\.safetensors, passage number {number}: .*memory repair"):
                read(number)
    with MemoryStore.open(store_copy, bundle, verify=False) as store:
        assert store.memory(number).num_tokens


def test_changed_texts_are_refused(bundle, store_copy):
    change_last_byte(store_copy / "passages.sqlite")
    with pytest.raises(StoreError, match=r"passages\.sqlite: expected SHA-256"):
        MemoryStore.open(store_copy, bundle)


@pytest.mark.parametrize("name", [SHARD, "passages.sqlite", "manifest.json"])
def test_a_missing_file_is_refused(bundle, store_copy, name):
    (store_copy / name).unlink()
    with pytest.raises(StoreError, match=f"a file {name}"):
        MemoryStore.open(store_copy, bundle)


def test_a_missing_store_is_refused(bundle, tmp_path):
    with pytest.raises(StoreError):
        MemoryStore.open(tmp_path / "absent", bundle)


def test_a_newer_schema_is_refused(bundle, store_copy):
    rewrite(store_copy / "manifest.json", schema_version=STORE_SCHEMA_VERSION + 1)
    with pytest.raises(StoreError, match="install a newer glimmer-export"):
        MemoryStore.open(store_copy, bundle)


def test_a_path_out_of_the_store_is_refused(bundle, store_copy):
    shutil.copy(store_copy / SHARD, store_copy.parent / "outside")

    def climb(data):
        data["shards"][1]["file"]["path"] = "../outside"

    change_manifest(store_copy, climb)
    with pytest.raises(StoreError, match="expected the name of a shard"):
        MemoryStore.open(store_copy, bundle)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"schema_version": 1}'])
def test_a_damaged_manifest_is_refused(bundle, store_copy, text):
    (store_copy / "manifest.json").write_text(text)
    with pytest.raises(StoreError):
        MemoryStore.open(store_copy, bundle)


def test_counts_that_do_not_add_up_are_refused(bundle, store_copy):
    rewrite(store_copy / "manifest.json", num_passages=NUM_PASSAGES + 1)
    with pytest.raises(StoreError, match="passages of its shards"):
        MemoryStore.open(store_copy, bundle)


def test_texts_that_are_not_sqlite_are_refused(bundle, store_copy):
    path = store_copy / "passages.sqlite"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(StoreError, match="a store's SQLite file"):
        MemoryStore.open(store_copy, bundle, verify=False)


def test_the_texts_of_another_store_are_refused(bundle, store_copy, tmp_path):
    build_store(bundle.directory, write_rows(tmp_path / "c.jsonl", [{"id": 1, "text": "w1"}]), tmp_path / "small")
    small = json.loads((tmp_path / "small" / "manifest.json").read_text())
    shutil.copy(tmp_path / "small" / "passages.sqlite", store_copy)
    mine = json.loads((store_copy / "manifest.json").read_text())["texts"][0]
    rewrite(store_copy / "manifest.json", texts=[{**mine, "file": small["texts"][0]["file"]}])
    with pytest.raises(StoreError, match=f"expected numbers from 0 up to {NUM_PASSAGES - 1} at least"):
        MemoryStore.open(store_copy, bundle)


@pytest.mark.parametrize("ids", [[1, 999], ["1"], [0], ["p0\ud800"], [2**63], [True], [1.0], [None]])
def test_an_unknown_id_is_named(bundle, store_path, ids):
    with MemoryStore.open(store_path, bundle) as store, pytest.raises(PassageError) as caught:
        store.numbers(ids)
    assert f"passage id {ids[-1]!r}" in str(caught.value)


def test_ids_come_back_with_their_type(bundle, tmp_path):
    ids = [1, "1", "01", "", "a\0b", "a\0c", -(2**63), 2**63 - 1, "9223372036854775807", "é", "e\u0301"]
    corpus = write_rows(tmp_path / "c.jsonl", [{"id": value, "text": "w1"} for value in ids])
    build_store(bundle.directory, corpus, tmp_path / "store")
    with MemoryStore.open(tmp_path / "store", bundle) as store:
        assert store.numbers(ids[::-1]) == list(range(len(ids)))[::-1]
        found = [passage.id for passage in store.passages(range(len(ids)))]
    assert found == ids
    assert [type(value) for value in found] == [type(value) for value in ids]


@pytest.mark.parametrize("number", [-1, NUM_PASSAGES])
def test_a_number_outside_the_store_is_an_index_error(bundle, store_path, number):
    with MemoryStore.open(store_path, bundle) as store:
        for read in (store.memory, store.input_ids, store.passage):
            with pytest.raises(IndexError):
                read(number)


def test_a_path_with_odd_characters_opens(bundle, store_path, tmp_path):
    odd = tmp_path / "a store?mode=rw#50% é"
    shutil.copytree(store_path, odd)
    with MemoryStore.open(odd, bundle) as store:
        assert store.passage(3).title == "title3"


def test_memory_is_a_read_only_view(bundle, store_path):
    with MemoryStore.open(store_path, bundle) as store:
        codes = store.memory(20).codes
        assert codes.base is not None
        with pytest.raises(ValueError, match="read-only"):
            codes[0, 0] = 0


def test_views_outlive_the_store(bundle, store_path):
    with MemoryStore.open(store_path, bundle) as store:
        codes = store.memory(20).codes
        expected = codes.copy()
    assert np.array_equal(codes, expected)


def test_a_closed_store_reads_nothing(bundle, store_path):
    store = MemoryStore.open(store_path, bundle)
    store.close()
    for read in (store.passage, store.memory, store.input_ids):
        with pytest.raises(ClosedError):
            read(0)


def test_a_store_without_memory_reads_none(tmp_path):
    fid = make_bundle(tmp_path / "bundle", architecture="fid")
    corpus = write_rows(tmp_path / "corpus.jsonl", [{"id": 1, "text": "w1"}])
    build_store(fid, corpus, tmp_path / "store")
    with MemoryStore.open(tmp_path / "store", Bundle.open(fid)) as store:
        for read in (store.memory, lambda number: store.prefetch([number])):
            with pytest.raises(StoreError, match="no memory"):
                read(0)


def test_a_store_that_was_built_anew_is_not_read_for_the_old_one(bundle, store_copy, tmp_path):
    """What is mapped and open stays; what would be opened now is another store's, under the same name."""
    rows = [{"id": number, "text": "w1 w2 w3"} for number in range(NUM_PASSAGES)]
    corpus = write_rows(tmp_path / "other.jsonl", rows)
    with MemoryStore.open(store_copy, bundle) as store:
        before = store.passage(0)
        store.memory(NUM_PASSAGES - 1)
        build_store(bundle.directory, corpus, store_copy, passages_per_shard=16, overwrite=True)
        assert store.passage(0) == before
        store.memory(NUM_PASSAGES - 1)
        with pytest.raises(StoreError, match="another in its place"):
            store.memory(0)
        with store._texts._files[0].connection(), pytest.raises(StoreError, match="another in its place"):
            store.passage(0)
    with MemoryStore.open(store_copy, bundle) as store:
        assert store.passage(0).text == "w1 w2 w3"


def test_several_threads_read_the_same(bundle, store_path):
    with MemoryStore.open(store_path, bundle) as store:

        def read(numbers):
            found = []
            for number in numbers:
                passage, memory = store.passage(number), store.memory(number)
                hits = store.search(f"{passage.title} w1 w2", 5)
                ids = store.input_ids(number)
                codes = [values.tobytes() for values in memory.tensors.values()]
                found.append((store.numbers([passage.id]), passage, codes, ids.tobytes(), hits))
            return found

        expected, results = read(range(NUM_PASSAGES)), {}
        start = threading.Barrier(8)

        def run(name):
            start.wait()
            results[name] = read(range(NUM_PASSAGES))

        threads = [threading.Thread(target=run, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(store._shards) == store.manifest.num_shards
    assert [results[name] for name in range(8)] == [expected] * 8


def test_shards_are_mapped_when_they_are_read_and_hold_no_descriptor(bundle, store_path):
    with MemoryStore.open(store_path, bundle) as store:
        assert len(store._shards) == 0
        before = sum(1 for _ in Path("/proc/self/fd").iterdir())
        for number in range(NUM_PASSAGES):
            store.memory(number)
        assert len(store._shards) == store.manifest.num_shards > 1
        assert sum(1 for _ in Path("/proc/self/fd").iterdir()) == before


def test_no_more_mappings_is_named(bundle, store_path, monkeypatch):
    class Full:
        def mmap(self, *_):
            ctypes.set_errno(errno.ENOMEM)
            return glimmer_export.runtime.mapped_file.FAILED

    with MemoryStore.open(store_path, bundle) as store:
        monkeypatch.setattr(glimmer_export.runtime.mapped_file, "_system", Full)
        with pytest.raises(StoreError, match="max_map_count"):
            store.memory(0)
