"""Compacting: what is copied and what is not, and which files go."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file, save

from glimmer_export.exporter.memory import append_passages, build_store, compact_store, delete_passages, repair_store
from glimmer_export.exporter.memory.merge_shards import PASSAGES_AT_ONCE, ShardSource, write_merged
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import StoreError, read_shards, read_store_manifest
from glimmer_export.runtime.contract.shard_layout import shard_tensors
from glimmer_export.runtime.store import MemoryStore
from tests.bundle_factory import make_bundle, tree, write_corpus, write_rows
from tests.memory.contents import live_numbers, open_contents

SMALL = {"passages_per_shard": 4, "batch_tokens": 1}


def shard_names(store):
    return [shard.file.path[7:-12] for shard in read_shards(store, read_store_manifest(store))]


@pytest.fixture(scope="module")
def built(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    write_corpus(folder / "corpus.jsonl", 14)
    build_store(bundle, folder / "corpus.jsonl", folder / "store", **SMALL)
    return folder / "store"


@pytest.fixture
def store(built, tmp_path):
    return shutil.copytree(built, tmp_path / "store")


def test_only_shards_that_lost_passages_are_written_anew(store, bundle):
    opened = Bundle.open(bundle)
    before, files = open_contents(store, opened), tree(store / "shards")
    delete_passages(store, [5, "p10"])
    summary = compact_store(store)
    assert (summary.copied, summary.shards, summary.passages) == (6, 2, 12)
    assert shard_names(store) == ["00000", "00002-00000", "00002-00001", "00003"]
    assert open_contents(store, opened) == [row for row in before if row[0] not in (5, "p10")]
    after = tree(store / "shards")
    assert sorted(after) == [f"{name}.safetensors" for name in shard_names(store)]
    assert {name: after[name] for name in ("00000.safetensors", "00003.safetensors")}.items() <= files.items()
    assert [shard.num_empty for shard in read_shards(store, read_store_manifest(store))] == [0, 1, 1, 0]
    assert compact_store(store).copied == 0


def test_deleting_the_first_passage_writes_one_shard_anew(store):
    files = tree(store / "shards")
    delete_passages(store, ["p0"])
    assert compact_store(store).copied == 3
    after = tree(store / "shards")
    assert sorted(files.keys() - after.keys()) == ["00000.safetensors"]
    assert {name: digest for name, digest in after.items() if name in files}.items() <= files.items()


def test_small_neighbours_are_merged(store, bundle, tmp_path):
    for index in range(3):
        corpus = write_rows(tmp_path / f"{index}.jsonl", [{"id": f"n{index}", "text": f"w{index} w5"}])
        append_passages(store, bundle, corpus, batch_tokens=1)
    whole = open_contents(store, Bundle.open(bundle))
    summary = compact_store(store)
    assert (summary.generation, summary.copied, summary.shards, summary.removed) == (4, 4, 1, (2, 3))
    assert [shard.num_passages for shard in read_shards(store, read_store_manifest(store))] == [4, 4, 4, 4, 1]
    assert open_contents(store, Bundle.open(bundle)) == whole
    for path in (store / "shards").iterdir():
        assert save(load_file(path)) == path.read_bytes()


def test_a_compact_store_is_left_as_it_is(store):
    before = tree(store.parent)
    summary = compact_store(store)
    assert (summary.generation, summary.copied, summary.removed, summary.freed_bytes) == (0, 0, (), 0)
    assert tree(store.parent) == before


def test_what_killed_changes_have_left_goes_and_nothing_else(store):
    expected = tree(store)
    for name in ("shards/00009.safetensors", "tombstones/00004.safetensors", "passages.00003.sqlite"):
        (store / name).parent.mkdir(exist_ok=True)
        (store / name).write_bytes(b"left")
    for name in ("notes.txt", "shards/notes.txt"):
        (store / name).write_text("mine")
    assert compact_store(store).freed_bytes == 12
    for name in ("notes.txt", "shards/notes.txt"):
        assert (store / name).read_text() == "mine"
        (store / name).unlink()
    assert tree(store) == expected


def test_an_older_manifest_that_cannot_be_read_goes_as_another(store):
    """What its change dropped was noted; nothing of it is read."""
    delete_passages(store, [5])
    (store / "manifests" / "00000.json").write_text("{")
    assert compact_store(store).removed == (0, 1)
    assert not (store / "passages.sqlite").exists()


def test_damaged_memory_is_not_copied(store):
    delete_passages(store, ["p0"])
    path = store / "shards" / "00000.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    before = tree(store.parent)
    with pytest.raises(StoreError, match=r"00000.*checksum.*memory repair"):
        compact_store(store)
    assert tree(store.parent) == before


def test_passages_that_were_cut_are_counted_no_higher_than_there_are(bundle, tmp_path):
    long = " ".join(["w1"] * 50)
    corpus = write_rows(tmp_path / "c.jsonl", [{"id": index, "text": long} for index in range(3)])
    build_store(bundle, corpus, tmp_path / "store", **SMALL)
    delete_passages(tmp_path / "store", [1, 2])
    compact_store(tmp_path / "store")
    assert json.loads((tmp_path / "store" / "manifest.json").read_text())["num_truncated"] == 1


def test_a_fid_store_is_compacted_too(tmp_path):
    bundle = make_bundle(tmp_path / "bundle", architecture="fid")
    corpus, opened = tmp_path / "corpus.jsonl", Bundle.open(bundle)
    write_corpus(corpus, 9)
    build_store(bundle, corpus, tmp_path / "store", **SMALL)
    with MemoryStore.open(tmp_path / "store", opened) as before:
        ids = {number: before.input_ids(number).tolist() for number in range(9) if number not in (1, 7)}
    delete_passages(tmp_path / "store", [1, 7])
    assert compact_store(tmp_path / "store").copied == 6
    with MemoryStore.open(tmp_path / "store", opened) as after:
        assert {number: after.input_ids(number).tolist() for number in live_numbers(after)} == ids


@pytest.mark.parametrize("codec", ["int8", "int4", "pq8x"])
def test_stores_of_every_codec_change_and_keep_its_arrays(tmp_path, codec):
    """Arrays are fitted once, to the corpus of the build: what is appended is encoded with them."""
    bundle = make_bundle(tmp_path / "bundle", codecs=(codec,))
    store, opened = tmp_path / "store", Bundle.open(bundle)
    write_corpus(tmp_path / "corpus.jsonl", 9)
    build_store(bundle, tmp_path / "corpus.jsonl", store, codec=codec, **SMALL)
    arrays, before = (store / "codec.safetensors").read_bytes(), open_contents(store, opened)
    text = {"title": "title3", "text": before[3][2]}
    append_passages(store, bundle, write_rows(tmp_path / "new.jsonl", [{"id": "new", **text}]), batch_tokens=1)
    delete_passages(store, [1])
    assert open_contents(store, opened) == [before[0], *before[2:], ("new", *before[3][1:])]
    compact_store(store)
    after = open_contents(store, opened)
    assert after == [before[0], *before[2:], ("new", *before[3][1:])]
    shard = store / "shards" / f"{shard_names(store)[0]}.safetensors"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    assert repair_store(store, bundle_directory=bundle, batch_tokens=1).restored == (f"shards/{shard.name}",)
    assert shard.read_bytes() == content
    assert (store / "codec.safetensors").read_bytes() == arrays


def test_long_runs_are_copied_in_pieces_and_the_rows_of_the_dead_stay_empty(bundle, tmp_path):
    count = 2 * PASSAGES_AT_ONCE + 5
    write_corpus(tmp_path / "corpus.jsonl", count)
    build_store(bundle, tmp_path / "corpus.jsonl", tmp_path / "store", index="fts5")
    (entry,) = read_store_manifest(tmp_path / "store").shards
    path, done = tmp_path / "store" / entry.file.path, []
    dead = np.array([0, 1, PASSAGES_AT_ONCE + 9, count - 1])
    written = write_merged(
        tmp_path / "copy.safetensors", "copy", [ShardSource(path, entry, dead)], d_model=8, codec="fp16",
        advance=done.append,
    )
    assert sum(done) == count - 4
    assert (written.num_passages, written.num_empty, written.first) == (count, 4, 0)
    source, copy = load_file(path), load_file(tmp_path / "copy.safetensors")
    assert set(copy) == {tensor.name for tensor in shard_tensors(1, 1, 8, "fp16")}
    alive = np.array([row for row in range(count) if row not in dead])
    lengths = np.diff(source["offsets"])
    lengths[dead] = 0
    assert np.array_equal(np.diff(copy["offsets"]), lengths)
    tokens = np.concatenate([np.arange(*source["offsets"][row : row + 2]) for row in alive])
    for name in set(copy) - {"offsets"}:
        if len(source[name]) == count:
            assert np.array_equal(copy[name][alive], source[name][alive])
            assert not copy[name][dead].any()
        else:
            assert np.array_equal(copy[name], source[name][tokens])
