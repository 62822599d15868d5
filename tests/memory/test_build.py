"""Building a store: what it holds, what it refuses, and that it goes on where it stopped."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save

from glimmer_export.exporter.memory import build_store
from glimmer_export.exporter.memory import texts as texts_module
from glimmer_export.exporter.memory.encode import length_batches
from glimmer_export.exporter.memory.work import work_directory
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.codecs import decode_fp16
from glimmer_export.runtime.contract import CorpusError, OutputError, StoreError, TokenizerError
from glimmer_export.runtime.passage_memory import encode_passages
from glimmer_export.runtime.store import MemoryStore
from tests.assert_close import assert_close
from tests.bundle_factory import HUGE, NOT_FINITE, WORDS, make_bundle, rewrite, tree, write_corpus, write_rows

SMALL = {"passages_per_shard": 8, "batch_tokens": 60}


def encoder_states(bundle: Bundle, store: MemoryStore, number: int) -> np.ndarray:
    graph = OnnxRuntimeBackend().load(bundle.graph_path("memory_encoder"), bundle.manifest.io()["memory_encoder"])
    return encode_passages(graph, [store.input_ids(number).tolist()])[0]


def test_a_store_holds_every_passage(bundle, corpus, tmp_path):
    summary = build_store(bundle, corpus, tmp_path / "store", **SMALL)
    rows = [json.loads(line) for line in corpus.read_text().splitlines()]
    opened = Bundle.open(bundle)
    assert (summary.passages, summary.shards, summary.truncated, summary.resumed_shards) == (50, 7, 0, 0)
    assert not summary.already_complete
    with MemoryStore.open(tmp_path / "store", opened) as store:
        assert store.num_passages == 50
        assert store.numbers([row["id"] for row in rows]) == list(range(50))
        for number, row in enumerate(rows):
            passage = store.passage(number)
            assert (passage.id, passage.title, passage.text) == (row["id"], row["title"], row["text"])
            assert store.input_ids(number).tolist() == opened.text.passage(row["title"], row["text"])[0]
            codes, scale = store.memory(number).tensors.values()
            assert codes.dtype == np.float16
            assert_close(decode_fp16(codes, scale), encoder_states(opened, store, number), "fp16_codec")
        assert summary.tokens == sum(len(store.input_ids(number)) for number in range(50))
        files = [path for path in (tmp_path / "store").rglob("*.s*") if path.is_file()]
        assert summary.bytes == sum(path.stat().st_size for path in files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.jsonl", "store"]


def test_shards_are_what_the_safetensors_library_writes(bundle, corpus, tmp_path):
    build_store(bundle, corpus, tmp_path / "store", **SMALL)
    for path in (tmp_path / "store" / "shards").iterdir():
        assert save(load_file(path)) == path.read_bytes()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(passages=st.lists(st.lists(st.sampled_from([*WORDS, HUGE]), min_size=1, max_size=30), min_size=1, max_size=9))
def test_memory_comes_back_within_fp16(bundle, tmp_path, passages):
    corpus = write_rows(
        tmp_path / "drawn.jsonl", [{"id": number, "text": " ".join(words)} for number, words in enumerate(passages)]
    )
    build_store(bundle, corpus, tmp_path / "drawn", overwrite=True, passages_per_shard=4, batch_tokens=40)
    opened = Bundle.open(bundle)
    with MemoryStore.open(tmp_path / "drawn", opened) as store:
        for number in range(len(passages)):
            codes, scale = store.memory(number).tensors.values()
            states = encoder_states(opened, store, number)
            assert np.log2(scale) == np.round(np.log2(scale))
            # Relative to the passage's greatest value, which sets its scale.
            peak = np.abs(states).max()
            assert_close(decode_fp16(codes, scale) / peak, states / peak, "fp16_codec")


def test_building_twice_gives_the_same_bytes(bundle, corpus, tmp_path):
    for name in ("one", "two"):
        build_store(bundle, corpus, tmp_path / name, **SMALL)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_long_passages_are_cut_and_counted(bundle, tmp_path):
    corpus = write_rows(tmp_path / "long.jsonl", [
        {"id": 0, "text": " ".join(WORDS[:23])},
        {"id": 1, "text": " ".join(WORDS[:24])},
        {"id": 2, "text": "w1 " * 500},
    ])
    assert build_store(bundle, corpus, tmp_path / "store").truncated == 2
    with MemoryStore.open(tmp_path / "store", Bundle.open(bundle)) as store:
        assert [len(store.input_ids(number)) for number in range(3)] == [24, 24, 24]
        assert store.manifest.num_truncated == 2
        assert store.passage(2).text == "w1 " * 500


def test_a_fid_store_has_token_ids_and_no_memory(corpus, tmp_path):
    bundle = make_bundle(tmp_path / "bundle", architecture="fid")
    build_store(bundle, corpus, tmp_path / "store", **SMALL)
    with MemoryStore.open(tmp_path / "store", Bundle.open(bundle)) as store:
        assert (store.manifest.codec, store.manifest.precision) == (None, None)
        assert store.input_ids(7)[-1] == 1
        with pytest.raises(StoreError, match="no memory"):
            store.memory(7)
    assert set(load_file(tmp_path / "store" / "shards" / "00000.safetensors")) == {"checksums", "input_ids", "offsets"}


def test_a_bundle_of_another_precision_reads_the_store(bundle, corpus, tmp_path):
    build_store(bundle, corpus, tmp_path / "store", **SMALL)
    other = make_bundle(tmp_path / "other", precision="fp16")
    MemoryStore.open(tmp_path / "store", Bundle.open(other)).close()


def test_a_finished_store_is_left_as_it_is(bundle, corpus, tmp_path):
    first = build_store(bundle, corpus, tmp_path / "store", **SMALL)
    before = (tmp_path / "store" / "manifest.json").stat()
    again = build_store(bundle, corpus, tmp_path / "store", **SMALL)
    assert again.already_complete
    assert (again.passages, again.tokens, again.bytes) == (first.passages, first.tokens, first.bytes)
    assert (tmp_path / "store" / "manifest.json").stat().st_mtime_ns == before.st_mtime_ns
    assert not (tmp_path / "store.partial").exists()


def test_another_store_is_replaced_only_on_request(bundle, corpus, tmp_path):
    output = tmp_path / "store"
    build_store(bundle, corpus, output, **SMALL)
    before = tree(output)
    other = make_bundle(tmp_path / "other", checkpoint="b")
    with pytest.raises(OutputError, match="--overwrite"):
        build_store(other, corpus, output, **SMALL)
    assert tree(output) == before
    assert not (tmp_path / "store.partial").exists()
    build_store(other, corpus, output, overwrite=True, **SMALL)
    MemoryStore.open(output, Bundle.open(other)).close()
    assert not (tmp_path / "store.partial").exists()


def test_a_damaged_finished_store_is_not_called_complete(bundle, corpus, tmp_path):
    output = tmp_path / "store"
    build_store(bundle, corpus, output, **SMALL)
    (output / "passages.sqlite").unlink()
    with pytest.raises(OutputError, match="--overwrite"):
        build_store(bundle, corpus, output, **SMALL)


def stop_behind(monkeypatch, recorded: Path, error: BaseException):
    """Let the memory encoder fail once a shard is recorded: others are under way then."""
    def failing(*arguments):
        if recorded.exists():
            raise error
        return encode_passages(*arguments)

    monkeypatch.setattr("glimmer_export.exporter.memory.encode.encode_passages", failing)


@pytest.fixture
def unfinished(bundle, corpus, tmp_path, monkeypatch):
    """A build that was interrupted after some shards."""
    with monkeypatch.context() as patched:
        stop_behind(patched, tmp_path / "store.partial" / "records" / "00001.json", KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            build_store(bundle, corpus, tmp_path / "store", **SMALL)
    return tmp_path / "store.partial"


def unbroken(bundle, corpus, tmp_path):
    build_store(bundle, corpus, tmp_path / "unbroken", **SMALL)
    return tree(tmp_path / "unbroken")


def test_an_interrupted_build_goes_on(bundle, corpus, tmp_path, unfinished):
    assert not (tmp_path / "store").exists()
    summary = build_store(bundle, corpus, tmp_path / "store", **SMALL)
    assert summary.resumed_shards > 0
    assert tree(tmp_path / "store") == unbroken(bundle, corpus, tmp_path)
    assert not unfinished.exists()


@pytest.mark.parametrize("damage", ["torn", "changed", "unrecorded", "record torn"])
def test_a_damaged_leftover_is_built_again(bundle, corpus, tmp_path, unfinished, damage):
    shard, record = unfinished / "store" / "shards" / "00001.safetensors", unfinished / "records" / "00001.json"
    if damage == "torn":
        os.truncate(shard, shard.stat().st_size - 1)
    elif damage == "changed":
        content = bytearray(shard.read_bytes())
        content[-1] ^= 1
        shard.write_bytes(content)
    elif damage == "unrecorded":
        record.unlink()
    else:
        record.write_text(record.read_text()[:20])
    kept = len(list((unfinished / "records").glob("*.json"))) - (damage != "unrecorded")
    assert build_store(bundle, corpus, tmp_path / "store", **SMALL).resumed_shards == kept
    assert tree(tmp_path / "store") == unbroken(bundle, corpus, tmp_path)


@pytest.mark.parametrize("other", ["settings", "corpus", "checkpoint"])
def test_unfinished_work_of_another_build_is_lost_only_on_request(bundle, corpus, tmp_path, unfinished, other):
    arguments = dict(SMALL)
    if other == "settings":
        arguments["batch_tokens"] = 61
    elif other == "corpus":
        write_corpus(corpus, 50, seed=1)
    else:
        bundle = make_bundle(tmp_path / "other", checkpoint="b")
    before = tree(unfinished)
    with pytest.raises(OutputError, match="--restart"):
        build_store(bundle, corpus, tmp_path / "store", **arguments)
    assert tree(unfinished) == before
    assert build_store(bundle, corpus, tmp_path / "store", restart=True, **arguments).resumed_shards == 0
    MemoryStore.open(tmp_path / "store", Bundle.open(bundle)).close()


def test_a_strange_directory_in_the_place_of_the_work_is_left_alone(bundle, corpus, tmp_path):
    (tmp_path / "store.partial").mkdir()
    (tmp_path / "store.partial" / "diary.txt").write_text("mine")
    with pytest.raises(OutputError, match="diary"):
        build_store(bundle, corpus, tmp_path / "store", **SMALL)
    assert (tmp_path / "store.partial" / "diary.txt").read_text() == "mine"


@pytest.mark.parametrize("content", ["{", '{"corpus_sha256": 5}'])
def test_an_unreadable_plan_is_named(bundle, corpus, tmp_path, unfinished, content):
    (unfinished / "plan.json").write_text(content)
    with pytest.raises(OutputError, match="--restart"):
        build_store(bundle, corpus, tmp_path / "store", **SMALL)


def test_two_builds_of_one_store_do_not_meet(bundle, corpus, tmp_path):
    with work_directory(tmp_path / "store"), pytest.raises(OutputError, match="no other build"):
        build_store(bundle, corpus, tmp_path / "store", **SMALL)
    assert build_store(bundle, corpus, tmp_path / "store", **SMALL).passages == 50


def test_a_full_disk_is_named_and_loses_nothing(bundle, corpus, tmp_path, monkeypatch):
    real, calls = os.pwrite, iter(range(60))

    def pwrite(*arguments):
        if next(calls, None) is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", pwrite)
        with pytest.raises(OutputError, match="a full disk"):
            build_store(bundle, corpus, tmp_path / "store", **SMALL)
    assert not (tmp_path / "store").exists()
    assert build_store(bundle, corpus, tmp_path / "store", **SMALL).resumed_shards > 0
    assert tree(tmp_path / "store") == unbroken(bundle, corpus, tmp_path)


def test_a_disk_that_fills_up_under_sqlite_is_named_too(bundle, corpus, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(texts_module, "SETTINGS", (*texts_module.SETTINGS, "PRAGMA max_page_count = 4"))
        with pytest.raises(OutputError, match="a full disk"):
            build_store(bundle, corpus, tmp_path / "store", **SMALL)
    assert not (tmp_path / "store").exists()
    assert build_store(bundle, corpus, tmp_path / "store", **SMALL).resumed_shards == 7
    assert tree(tmp_path / "store") == unbroken(bundle, corpus, tmp_path)


def test_memory_that_is_not_finite_names_the_passage(bundle, tmp_path):
    corpus = write_rows(tmp_path / "c.jsonl", [{"id": "good", "text": "w1"}, {"id": "bad", "text": f"w1 {NOT_FINITE}"}])
    with pytest.raises(StoreError, match="passage 'bad'"):
        build_store(bundle, corpus, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_bundle_without_a_tokenizer_builds_no_store(corpus, tmp_path):
    bundle = make_bundle(tmp_path / "bundle", tokenizer=False)
    with pytest.raises(TokenizerError, match="a tokenizer"):
        build_store(bundle, corpus, tmp_path / "store")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle", "corpus.jsonl"]


def test_a_bad_corpus_leaves_nothing_behind(bundle, tmp_path):
    corpus = write_rows(tmp_path / "c.jsonl", [{"id": 1, "text": "w1"}, {"id": 1, "text": "w2"}])
    with pytest.raises(CorpusError, match="line 2"):
        build_store(bundle, corpus, tmp_path / "store")
    assert [path.name for path in tmp_path.iterdir()] == ["c.jsonl"]


def test_python_without_fts5_is_named_before_any_work(bundle, corpus, tmp_path, monkeypatch):
    import sqlite3

    class Plain(sqlite3.Connection):
        def execute(self, sql, *arguments):
            if "fts5" in sql:
                raise sqlite3.OperationalError("no such module: fts5")
            return super().execute(sql, *arguments)

    real = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **kwargs: real(*args, factory=Plain, **kwargs))
    with pytest.raises(StoreError, match="FTS5"):
        build_store(bundle, corpus, tmp_path / "store")
    assert not (tmp_path / "store.partial").exists()


def test_a_store_manifest_of_a_newer_schema_is_something_else(bundle, corpus, tmp_path):
    build_store(bundle, corpus, tmp_path / "store", **SMALL)
    rewrite(tmp_path / "store" / "manifest.json", schema_version=99)
    with pytest.raises(OutputError):
        build_store(bundle, corpus, tmp_path / "store", **SMALL)
    shutil.rmtree(tmp_path / "store")


@pytest.mark.parametrize("terminal", [False, True])
def test_progress_shows_on_a_terminal_alone(bundle, corpus, tmp_path, capsys, monkeypatch, terminal):
    monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
    build_store(bundle, corpus, tmp_path / "store", progress=True, **SMALL)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ("Encoding passages" in captured.err and "50/50" in captured.err) == terminal
    assert bool(captured.err.strip()) == terminal


@given(lengths=st.lists(st.integers(1, 40), max_size=40), batch_tokens=st.integers(1, 200))
def test_batches_are_of_like_length_and_within_the_budget(lengths, batch_tokens):
    batches = list(length_batches(lengths, batch_tokens))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    ordered = [lengths[row] for batch in batches for row in batch]
    assert ordered == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[row] for row in batch) <= batch_tokens
