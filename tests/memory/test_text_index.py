"""The full-text index of a build: which engine, and that a build that stopped leaves nothing of it behind."""

from __future__ import annotations

import sqlite3
import sys

import numpy as np
import pytest

from glimmer_export.exporter.memory import append_passages, build_store, full_text
from glimmer_export.exporter.memory import build as build_module
from glimmer_export.exporter.memory.full_text import choose_engine, write_segments
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import MissingExtraError, OptionError, OutputError
from glimmer_export.runtime.retrieval.tantivy_bm25 import TantivyIndex
from glimmer_export.runtime.store import MemoryStore, Passage
from tests.bundle_factory import tree, write_rows

SMALL = {"passages_per_shard": 16, "batch_tokens": 60}


@pytest.mark.parametrize(
    ("choice", "num_passages", "engine"),
    [
        ("auto", 100_000, "fts5"), ("auto", 100_001, "tantivy"), ("fts5", 10**7, "fts5"), ("tantivy", 1, "tantivy"),
    ],
)
def test_the_engine_goes_by_the_number_of_passages_unless_it_is_named(choice, num_passages, engine):
    assert choose_engine(choice, num_passages) == engine


def test_a_store_that_has_grown_past_its_engine_says_so(bundle, corpus, tmp_path, monkeypatch):
    for engine in ("fts5", "tantivy"):
        build_store(bundle, corpus, tmp_path / engine, index=engine, **SMALL)
    monkeypatch.setattr(full_text, "MOST_FOR_FTS5", 51)
    for number, warned in ((1, {"fts5": 0, "tantivy": 0}), (2, {"fts5": 1, "tantivy": 0})):
        for engine, count in warned.items():
            more = write_rows(tmp_path / "more.jsonl", [{"id": f"more{number}", "title": "t", "text": "w1"}])
            said = append_passages(tmp_path / engine, bundle, more, batch_tokens=60).warnings
            assert len([line for line in said if "--engine tantivy" in line and "52 passages" in line]) == count


def test_an_unknown_engine_is_named(bundle, corpus, tmp_path):
    with pytest.raises(OptionError, match="one of auto, fts5, tantivy"):
        build_store(bundle, corpus, tmp_path / "store", index="lucene")
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_only_the_index_differs(bundle, corpus, tmp_path):
    for engine in ("fts5", "tantivy"):
        build_store(bundle, corpus, tmp_path / engine, index=engine, **SMALL)
    fts5, tantivy = (tree(tmp_path / engine) for engine in ("fts5", "tantivy"))
    segment = {name for name in tantivy if name.startswith("segments/00000-00000/")}
    differ = {name for name in fts5 if fts5[name] != tantivy.get(name)}
    assert differ == {"manifest.json", "replicas/00000.manifest", "passages.sqlite"}
    assert set(tantivy) - set(fts5) == segment | {"texts/00000-00000.sqlite"}
    with MemoryStore.open(tmp_path / "tantivy", Bundle.open(bundle)) as store:
        assert {file.path for part in store.manifest.segments for file in part.files} == segment
    connection = sqlite3.connect(tmp_path / "tantivy" / "texts" / "00000-00000.sqlite")
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    connection.close()
    assert tables == [("passages",)]


def test_equal_builds_give_equal_bytes(bundle, corpus, tmp_path):
    """tantivy draws the names of its segments by chance."""
    for name in ("one", "two"):
        build_store(bundle, corpus, tmp_path / name, index="tantivy", **SMALL)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


@pytest.mark.slow
def test_equal_passages_give_an_equal_index_of_many_parts(tmp_path, monkeypatch):
    """Of fewer than eight: as many tantivy joins, in an order that it draws, and no two indexes are alike."""
    monkeypatch.setattr(full_text, "WRITER_BYTES", 15_000_000)  # the least that tantivy takes
    words = [f"w{number}" for number in range(5000)]
    passages = [Passage(number, "", " ".join(words[number % 97 :: 83])) for number in range(25_000)]
    for name in ("one", "two"):
        (segment,) = write_segments(
            tmp_path / name, 0, enumerate(passages), len(passages), advance=lambda _: None
        )
        assert len(segment.documents) > 2
        assert sum(segment.documents) == len(passages)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    index = TantivyIndex(tmp_path / "two", [segment], np.zeros(0, np.int64))
    assert {hit.number % 97 for hit in index.search("w96", 25_000)} == {13, 96}


def test_a_finished_store_with_another_index_is_another_store(bundle, corpus, tmp_path):
    build_store(bundle, corpus, tmp_path / "store", index="tantivy", **SMALL)
    assert build_store(bundle, corpus, tmp_path / "store", index="tantivy", **SMALL).already_complete
    with pytest.raises(OutputError, match="--overwrite"):
        build_store(bundle, corpus, tmp_path / "store", **SMALL)
    build_store(bundle, corpus, tmp_path / "store", overwrite=True, **SMALL)
    assert not (tmp_path / "store" / "segments").exists()


def test_an_index_that_was_stopped_is_written_anew(bundle, corpus, tmp_path, monkeypatch):
    def stopped(store, generation, *arguments, **options):
        (store / "segments" / "00000-00000").mkdir(parents=True)
        (store / "segments" / "00000-00000" / "half.idx").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(build_module, "write_texts_and_index", stopped)
        with pytest.raises(KeyboardInterrupt):
            build_store(bundle, corpus, tmp_path / "store", index="tantivy", **SMALL)
    with pytest.raises(OutputError, match=r"index_engine fts5, as asked for, found tantivy; .*--restart"):
        build_store(bundle, corpus, tmp_path / "store", **SMALL)
    summary = build_store(bundle, corpus, tmp_path / "store", index="tantivy", **SMALL)
    assert summary.resumed_shards == 4
    with MemoryStore.open(tmp_path / "store", Bundle.open(bundle)) as store:
        named = {file.path for file in store.manifest.files()} | {"manifest.json", "replicas/00000.manifest"}
        assert named == set(tree(tmp_path / "store"))
        assert [hit.number for hit in store.search("title7", 5)] == [7]


def test_a_machine_without_tantivy_is_told_before_any_work(bundle, corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tantivy", None)
    with pytest.raises(MissingExtraError, match=r"glimmer-export\[retrieval\]"):
        build_store(bundle, corpus, tmp_path / "store", index="tantivy", **SMALL)
    assert [path.name for path in tmp_path.iterdir()] == ["corpus.jsonl"]
    build_store(bundle, corpus, tmp_path / "store", **SMALL)
