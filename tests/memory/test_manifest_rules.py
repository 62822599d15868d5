"""A store's manifest with a value of the right type that no writer gives: every command refuses it, and writes nothing.

The stores have no replicas, as earlier versions made them: there the rules alone tell.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from glimmer_export.exporter.memory import (
    append_passages,
    build_store,
    compact_store,
    convert_store,
    delete_passages,
    renew_index,
    repair_store,
    verify_store,
)
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import StoreError
from glimmer_export.runtime.store import MemoryStore
from tests.bundle_factory import make_bundle, rewrite, tree, write_corpus, write_rows

HUGE = 2**63
SHA = "0" * 64


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("int8") / "bundle", codecs=("int8",))


@pytest.fixture(scope="module")
def built(int8, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    write_corpus(folder / "corpus.jsonl", 6)
    build_store(int8, folder / "corpus.jsonl", folder / "store", codec="int8", passages_per_shard=4)
    delete_passages(folder / "store", [1])
    return folder / "store"


@pytest.fixture
def store(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "store"))


def set_at(data, path, value):
    *above, last = path
    for step in above:
        data = data[step]
    data[last] = value


LIST = {
    "file": {"path": "shard-lists/00000-00000.json", "bytes": 900, "sha256": SHA},
    "num_shards": 1, "num_passages": 4, "num_tokens": 9, "first": 0,
}
SEGMENT = {"first": 0, "num_numbers": 6, "num_passages": 6, "files": [], "documents": []}
WRONG = [
    ("codec", "int2"), ("codec", None), ("codec", "fp16"), ("codec", "pq8x"), ("codec_arrays", None),
    ("codec_arrays.path", "passages.00001.sqlite"), ("codec_arrays.path", "/etc/passwd"), ("codec_arrays.bytes", 1),
    ("codec_arrays.sha256", "x"), ("precision", None), ("precision", "fp64"), ("generation", -1), ("generation", HUGE),
    ("generation", 0), ("memory_digest", ""), ("tokenizer_digest", "x"), ("corpus_sha256", SHA + "0"),
    ("d_model", 0), ("d_model", -8), ("d_model", HUGE), ("passage_length", 0),
    ("passage_length", 1), ("passage_length", HUGE), ("passages_per_shard", 0), ("passages_per_shard", 1),
    ("passages_per_shard", HUGE), ("num_passages", 6), ("num_passages", -5), ("num_passages", HUGE),
    ("num_truncated", -1), ("num_truncated", 7), ("earlier_sha256", "x"),
    ("chunk_words", 0), ("chunk_words", -1), ("tombstones", None), ("tombstones", []), ("tombstones", [-1]),
    ("tombstones", [6]), ("tombstones", [HUGE]), ("tombstones", [1, 1]), ("tombstones", [True]),
    ("tombstone_files", [{"file": {"path": "tombstones/00001.safetensors", "bytes": 90, "sha256": SHA}, "count": 1}]),
    ("texts", []), ("texts.0.first", 1), ("texts.0.num_numbers", 5), ("texts.0.num_numbers", HUGE),
    ("texts.0.num_passages", 7), ("texts.0.num_passages", 4), ("texts.0.file.path", "manifest.json"),
    ("texts.0.file.path", "passages.00009.sqlite"), ("texts.0.file.path", "../passages.sqlite"),
    ("texts.0.file.bytes", -1), ("texts.0.file.bytes", HUGE), ("texts.0.file.sha256", "X" * 64),
    ("texts.0.checksums", None), ("segments", [SEGMENT]),
    ("shards.0.first", 1), ("shards.1.first", 0), ("shards.0.num_empty", -1), ("shards.0.num_empty", 5),
    ("shards.0.checksums", None), ("shard_lists", [LIST]), ("shard_lists", [{**LIST, "first": 4}]),
    ("shard_lists", [{**LIST, "num_shards": 0}]),
    ("index.engine", "lucene"), ("index.engine", "tantivy"), ("index.folding", -1), ("index.folding", 2),
    ("index.folding", 0), ("index.unicode", None), ("index.unicode", ""), ("shards.0.num_passages", 0),
    ("shards.0.num_passages", -1), ("shards.0.num_passages", HUGE), ("shards.0.num_tokens", 0),
    ("shards.0.num_tokens", HUGE), ("shards.0.file.bytes", 0), ("shards.0.file.bytes", HUGE),
    ("shards.0.file.path", "shards/00001.safetensors"), ("shards.0.file.path", "codec.safetensors"),
    ("shards.0.file.sha256", ""), ("shards", []), ("codec_snr.fitted_db", float("nan")),
    ("codec_snr.fitted_db", float("inf")),
]


@pytest.mark.parametrize(("field", "value"), WRONG)
def test_a_field_that_no_writer_gives(store, int8, tmp_path, field, value):
    data = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
    set_at(data, [int(step) if step.isdigit() else step for step in field.split(".")], value)
    rewrite(store / "manifest.json", **data)
    new = write_rows(tmp_path / "new.jsonl", [{"id": "new", "text": "w1"}])
    before = tree(tmp_path)
    for use in (
        lambda: MemoryStore.open(store, Bundle.open(int8), verify=False),
        lambda: delete_passages(store, [3]),
        lambda: append_passages(store, int8, new),
        lambda: compact_store(store),
        lambda: renew_index(store),
        lambda: repair_store(store),
        lambda: convert_store(store, tmp_path / "out", "fp16"),
    ):
        with pytest.raises(StoreError):
            use()
    assert [item.path for item in verify_store(store).damaged] == ["manifest.json"]
    assert tree(tmp_path) == before
    assert {path.name for path in tmp_path.iterdir()} == {"new.jsonl", "store"}


def size_of_a_file(data):
    data["texts"][0]["file"]["bytes"] += 1


def size_of_a_shard(data):
    data["shards"][0]["file"]["bytes"] += 1


def another_width(data):
    """One byte a token more, which in a shard of some tokens a longer header might have."""
    data["d_model"] = 9


@pytest.mark.parametrize("lie", [size_of_a_file, size_of_a_shard, another_width])
def test_what_only_the_files_tell(store, int8, tmp_path, lie):
    """A change looks at what a session would: no generation is made on what could not be opened."""
    data = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
    lie(data)
    rewrite(store / "manifest.json", **data)
    new = write_rows(tmp_path / "new.jsonl", [{"id": "new", "text": "w1"}])
    before = tree(tmp_path)
    for use in (
        lambda: MemoryStore.open(store, Bundle.open(int8), verify=False),
        lambda: delete_passages(store, [3]),
        lambda: append_passages(store, int8, new),
        lambda: compact_store(store),
        lambda: renew_index(store),
    ):
        with pytest.raises(StoreError):
            use()
    assert tree(tmp_path) == before


def test_an_older_manifest_of_another_generation_is_told(store):
    (store / "manifests" / "00000.json").rename(store / "manifests" / "00007.json")
    assert [item.path for item in verify_store(store).damaged] == ["manifests/00007.json"]


def test_a_lie_of_two_shards_is_told_when_they_are_read(store, int8):
    """The totals hold, and so do the sizes within what a header may have."""
    data = json.loads((store / "manifest.json").read_text(encoding="utf-8"))
    data["shards"][0]["num_tokens"] += 1
    data["shards"][1]["num_tokens"] -= 1
    rewrite(store / "manifest.json", **data)
    with MemoryStore.open(store, Bundle.open(int8)) as opened, pytest.raises(StoreError, match="tensor"):
        opened.memory(0)
    assert [item.path for item in verify_store(store).damaged] == [shard["file"]["path"] for shard in data["shards"]]
