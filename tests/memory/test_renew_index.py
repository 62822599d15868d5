"""A store whose words its engine made is searched as before, until its index is made anew with folded words."""

from __future__ import annotations

import dataclasses
import shutil
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
from glimmer_export.runtime.contract import StoreError, read_store_manifest
from glimmer_export.runtime.contract.store_layout import FOLDING
from glimmer_export.runtime.contract.text_schema import FOLDED_INDEX
from glimmer_export.runtime.store import MemoryStore
from tests.bundle_factory import rewrite, write_rows
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
    assert found(renewed, opened, QUESTION) == whole
    assert found(renewed, opened, "日本") == ["tokyo"]
    convert_store(renewed, renewed.parent / "int4", "int4")
    assert found(renewed.parent / "int4", opened, "日本") == ["tokyo"]
    assert (folding(renewed), folding(renewed.parent / "int4")) == (FOLDING, FOLDING)


def test_a_changed_index_ranks_as_one_made_anew(renewed, opened):
    append(renewed, [TOKYO, {"id": "again", "title": "w1", "text": "w57 w33 w40 w40"}])
    delete_passages(renewed, ["p2"])
    with MemoryStore.open(renewed, opened) as reader:
        changed = reader.search(QUESTION, 50)
    renew_index(renewed)
    with MemoryStore.open(renewed, opened) as reader:
        anew = reader.search(QUESTION, 50)
    assert [hit.number for hit in changed] == [hit.number for hit in anew]
    assert [hit.score for hit in changed] == pytest.approx([hit.score for hit in anew], abs=1e-9)


def test_vectors_stay(old, opened):
    count = read_store_manifest(old).num_passages
    np.save(old.parent / "x.npy", np.eye(count, dtype=np.float32))
    index_store(old, embeddings=old.parent / "x.npy")
    renew_index(old)
    with MemoryStore.open(old, opened) as reader:
        assert len(reader.search_dense(np.ones(count, np.float32), count)) == count
    assert verify_store(old).damaged == ()


def test_a_damaged_index_is_repaired_with_its_folding(opened, tmp_path):
    store = Path(shutil.copytree(GOLDEN / "store-tantivy", tmp_path / "store"))
    append(store, [TOKYO])
    for expected in (0, FOLDING):
        before = found(store, opened, QUESTION)
        files = [file for segment in read_store_manifest(store).segments for file in segment.index]
        path = store / max(files, key=lambda file: file.bytes).path
        path.write_bytes(path.read_bytes()[:-1] + b"\0")
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
