"""A store whose words its engine made is searched as before, until its index is made anew with folded words."""

from __future__ import annotations

import dataclasses
import shutil
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from glimmer_export.exporter.memory import (
    append_passages,
    compact_store,
    convert_store,
    delete_passages,
    index_store,
    renew_index,
    repair_store,
    verify_store,
)
from glimmer_export.exporter.memory import texts as texts_module
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import MissingExtraError, OptionError, StoreError, read_store_manifest
from glimmer_export.runtime.contract.store_layout import FOLDING
from glimmer_export.runtime.contract.text_schema import FOLDED_INDEX
from glimmer_export.runtime.store import MemoryStore
from tests.bundle_factory import rewrite, tree, write_rows
from tests.memory.contents import open_contents, search_ids
from tests.test_golden import GOLDEN

BUNDLE = GOLDEN / "bundle"
TOKYO = {"id": "tokyo", "title": "w1", "text": "東京は日本の首都です"}
QUESTION = "w58 w57 w33 w40"


@pytest.fixture(scope="module")
def opened():
    return Bundle.open(BUNDLE)


@pytest.fixture(params=["store-fp16", "store-tantivy"])
def old(request, tmp_path):
    return Path(shutil.copytree(GOLDEN / request.param, tmp_path / "store"))


@pytest.fixture
def renewed(old):
    renew_index(old)
    return old


def found(store, opened, question):
    with MemoryStore.open(store, opened) as reader:
        return [name for name, _ in search_ids(reader, question)]


def folding(store):
    return read_store_manifest(store).index.folding


def append(store, rows, **options):
    return append_passages(store, BUNDLE, write_rows(store.parent / "new.jsonl", rows), threads=1, **options)


def test_an_old_store_stays_one_however_it_is_changed(old, opened):
    before = found(old, opened, QUESTION)
    append(old, [TOKYO])
    assert folding(old) == 0
    assert found(old, opened, "首都") == []
    assert "tokyo" in found(old, opened, "東京は日本の首都です")
    delete_passages(old, ["tokyo"])
    assert found(old, opened, QUESTION) == before
    assert found(old, opened, "東京は日本の首都です") == []
    compact_store(old)
    convert_store(old, old.parent / "int8", "int8")
    assert (folding(old), folding(old.parent / "int8")) == (0, 0)
    assert found(old.parent / "int8", opened, QUESTION) == found(old, opened, QUESTION)


def test_an_index_made_anew_finds_what_it_did_not(old, opened):
    append(old, [TOKYO])
    before, contents = set(found(old, opened, QUESTION)), open_contents(old, opened)
    with MemoryStore.open(old, opened) as reader:
        summary = renew_index(old)
        assert search_ids(reader, "首都") == []
    assert (summary.generation, summary.passages) == (read_store_manifest(old).generation, len(contents))
    assert folding(old) == FOLDING
    assert found(old, opened, "首都") == ["tokyo"]
    assert set(found(old, opened, QUESTION)) == before
    assert open_contents(old, opened) == contents
    assert verify_store(old).damaged == ()


def test_every_change_keeps_the_folding(renewed, opened):
    append(renewed, [TOKYO, {"id": "p0", "title": "İstanbul", "text": "ﬁeld"}], replace=True)
    assert sorted(found(renewed, opened, "首都 istanbul")) == ["p0", "tokyo"]
    assert found(renewed, opened, "field") == ["p0"]
    delete_passages(renewed, ["p0", "p2"])
    assert found(renewed, opened, "istanbul field") == []
    whole = found(renewed, opened, QUESTION)
    compact_store(renewed)
    # tantivy counts words in the deleted until then, which can move those whose scores are close.
    assert sorted(found(renewed, opened, QUESTION), key=str) == sorted(whole, key=str)
    assert found(renewed, opened, "日本") == ["tokyo"]
    convert_store(renewed, renewed.parent / "int4", "int4")
    assert found(renewed.parent / "int4", opened, "日本") == ["tokyo"]
    assert (folding(renewed), folding(renewed.parent / "int4")) == (FOLDING, FOLDING)


def test_a_changed_index_ranks_as_one_made_anew(renewed, opened):
    """With tantivy once it is compact."""
    append(renewed, [TOKYO, {"id": "again", "title": "w1", "text": "w57 w33 w40 w40"}])
    delete_passages(renewed, ["p2"])
    compact_store(renewed)
    with MemoryStore.open(renewed, opened) as reader:
        changed = reader.search(QUESTION, 50)
    renew_index(renewed)
    with MemoryStore.open(renewed, opened) as reader:
        anew = reader.search(QUESTION, 50)
    assert [hit.number for hit in changed] == [hit.number for hit in anew]
    assert [hit.score for hit in changed] == pytest.approx([hit.score for hit in anew], abs=1e-9)


@pytest.mark.parametrize("engine", ["fts5", "tantivy", "auto"])
def test_a_store_goes_from_one_engine_to_another_and_back(old, opened, engine):
    """Numbers, passages and what was deleted stay; back again, each score is what it was."""
    append(old, [TOKYO])
    delete_passages(old, ["p2"])
    contents, first = open_contents(old, opened), read_store_manifest(old)
    summary = renew_index(old, engine=engine)
    manifest, name = read_store_manifest(old), "fts5" if engine == "auto" else engine
    assert (summary.engine, summary.engine_before) == (name, first.index.engine)
    assert (manifest.index.engine, manifest.index.folding) == (name, FOLDING)
    assert (manifest.num_numbers, manifest.num_tombstones) == (first.num_numbers, first.num_tombstones)
    assert open_contents(old, opened) == contents
    assert found(old, opened, "首都") == ["tokyo"]
    assert verify_store(old).damaged == ()
    delete_passages(old, ["p0"])
    append(old, [{"id": "p0", "title": "w1", "text": "w58"}])
    assert "p0" in found(old, opened, QUESTION)
    assert verify_store(old).damaged == ()
    renew_index(old)
    with MemoryStore.open(old, opened) as reader:
        anew = reader.search(QUESTION, 50)
    for other in ("fts5" if name == "tantivy" else "tantivy", name):
        renew_index(old, engine=other)
    with MemoryStore.open(old, opened) as reader:
        assert reader.search(QUESTION, 50) == anew


def test_an_engine_that_is_none_is_named(old):
    before = tree(old)
    with pytest.raises(OptionError, match="one of auto, fts5, tantivy"):
        renew_index(old, engine="lucene")
    assert tree(old) == before


def test_a_machine_without_tantivy_can_move_away_from_it_and_not_to_it(opened, tmp_path, monkeypatch):
    store = Path(shutil.copytree(GOLDEN / "store-tantivy", tmp_path / "store"))
    expected = found(store, opened, QUESTION)
    monkeypatch.setitem(sys.modules, "tantivy", None)
    with pytest.raises(MissingExtraError, match=r"glimmer-export\[retrieval\]"):
        renew_index(store)
    renew_index(store, engine="fts5")
    assert sorted(found(store, opened, QUESTION), key=str) == sorted(expected, key=str)
    before = tree(store)
    with pytest.raises(MissingExtraError, match=r"glimmer-export\[retrieval\]"):
        renew_index(store, engine="tantivy")
    assert {name: before[name] for name in tree(store)} == tree(store)


@pytest.mark.parametrize("engine", [None, "fts5", "tantivy"])
def test_vectors_stay(old, opened, engine):
    count = read_store_manifest(old).num_passages
    np.save(old.parent / "x.npy", np.eye(count, dtype=np.float32))
    index_store(old, embeddings=old.parent / "x.npy")
    renew_index(old, engine=engine)
    with MemoryStore.open(old, opened) as reader:
        assert len(reader.search_dense(np.ones(count, np.float32), count)) == count
    assert verify_store(old).damaged == ()


def test_a_damaged_index_is_repaired_with_its_folding(opened, tmp_path):
    store = Path(shutil.copytree(GOLDEN / "store-tantivy", tmp_path / "store"))
    append(store, [TOKYO])
    for expected in (0, FOLDING):
        before = found(store, opened, QUESTION)
        files = [file for segment in read_store_manifest(store).segments for file in segment.files]
        path = store / max(files, key=lambda file: file.bytes).path
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert verify_store(store).damaged != ()
        repair_store(store)
        assert folding(store) == expected
        assert found(store, opened, QUESTION) == before
        renew_index(store)


def test_an_index_of_another_unicode_is_not_added_to(opened, tmp_path, monkeypatch):
    """What it is told to forget it must have been told in the same words."""
    store = Path(shutil.copytree(GOLDEN / "store-fp16", tmp_path / "store"))
    append(store, [TOKYO])
    renew_index(store)
    index = read_store_manifest(store).index
    assert index.unicode == unicodedata.unidata_version
    rewrite(store / "manifest.json", index={**dataclasses.asdict(index), "unicode": "1.0.0"})
    monkeypatch.setattr(texts_module, "TEXT_INDEXES", {1: dataclasses.replace(FOLDED_INDEX, forget="", add="")})
    delete_passages(store, ["p0"])
    assert read_store_manifest(store).index.unicode == unicodedata.unidata_version
    assert found(store, opened, "首都") == ["tokyo"]
    assert "p0" not in found(store, opened, QUESTION)


def test_a_folding_of_the_future_is_refused(renewed, opened):
    index = dataclasses.asdict(read_store_manifest(renewed).index)
    rewrite(renewed / "manifest.json", index={**index, "folding": FOLDING + 1})
    with pytest.raises(StoreError, match="install a newer glimmer-export"):
        MemoryStore.open(renewed, opened)
