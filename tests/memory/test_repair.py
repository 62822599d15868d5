"""Verifying a store, and making again what is damaged: with the bytes it had, or else in a new generation."""

from __future__ import annotations

import json
import shutil

import pytest

from glimmer_export.exporter.memory import (
    append_passages,
    build_store,
    compact_store,
    delete_passages,
    repair_store,
    roll_back,
    verify_store,
)
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import OptionError, StoreError
from glimmer_export.runtime.store import MemoryStore
from tests.bundle_factory import make_bundle, rewrite, tree, write_corpus, write_rows
from tests.memory.contents import contents, live_numbers, open_contents

SMALL = {"passages_per_shard": 4, "batch_tokens": 60}


@pytest.fixture(scope="module")
def opened(bundle):
    return Bundle.open(bundle)


@pytest.fixture(scope="module")
def built(bundle, tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    write_corpus(folder / "corpus.jsonl", 10)
    build_store(bundle, folder / "corpus.jsonl", folder / "store", **SMALL)
    return folder / "store"


@pytest.fixture
def store(built, tmp_path):
    return shutil.copytree(built, tmp_path / "store")


@pytest.fixture
def corpus(built):
    return built.parent / "corpus.jsonl"


def damage(path, how="changed"):
    if how == "missing":
        path.unlink()
    elif how == "torn":
        path.write_bytes(path.read_bytes()[:-5])
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)


def damaged_paths(store):
    return [item.path for item in verify_store(store).damaged]


def test_a_whole_store_is_whole(store, bundle, tmp_path):
    report = verify_store(store)
    assert (report.generation, report.damaged, report.older, report.unnamed) == (0, (), (), ())
    assert report.files == 4
    assert report.bytes == sum(path.stat().st_size for path in store.rglob("*.s*"))
    append_passages(store, bundle, write_rows(tmp_path / "n.jsonl", [{"id": "new", "text": "w1"}]))
    delete_passages(store, ["new", 1])
    (store / "notes.txt").write_text("mine")
    report = verify_store(store)
    assert (report.generation, report.files, report.damaged) == (2, 6, ())
    assert (report.older, report.unnamed) == ((1,), ("notes.txt",))


def test_verifying_writes_nothing_and_needs_a_store(store, tmp_path):
    before = tree(tmp_path)
    verify_store(store)
    assert tree(tmp_path) == before
    with pytest.raises(StoreError):
        verify_store(tmp_path / "absent")


@pytest.mark.parametrize("how", ["missing", "torn", "changed"])
def test_a_damaged_shard_gets_its_bytes_again(store, bundle, how):
    before = tree(store)
    for name in ("00000", "00002"):
        damage(store / "shards" / f"{name}.safetensors", how)
    report = verify_store(store)
    assert [item.path for item in report.damaged] == ["shards/00000.safetensors", "shards/00002.safetensors"]
    assert "--bundle" in report.damaged[0].fix
    summary = repair_store(store, bundle_directory=bundle, batch_tokens=60)
    assert summary.restored == ("shards/00000.safetensors", "shards/00002.safetensors")
    assert (summary.generation, summary.renewed) == (0, ())
    assert tree(store) == before


def test_a_shard_that_comes_out_otherwise_makes_a_generation(store, bundle, opened, monkeypatch):
    """As on another type of CPU."""
    from glimmer_export.runtime import passage_memory

    before = open_contents(store, opened)
    damage(store / "shards" / "00001.safetensors")
    real = passage_memory.encode_passages
    monkeypatch.setattr(
        "glimmer_export.exporter.memory.encode.encode_passages",
        lambda *arguments: [state * 1.001 for state in real(*arguments)],
    )
    with MemoryStore.open(store, opened, verify=False) as old:
        summary = repair_store(store, bundle_directory=bundle, batch_tokens=60)
        assert (summary.generation, summary.restored, summary.renewed) == (1, (), ("shards/00001.safetensors",))
        assert old.manifest.generation == 0
        assert len(contents(old)) == 10
    assert damaged_paths(store) == ["shards/00001.safetensors"]  # of the older generation
    assert "compact" in verify_store(store).damaged[0].fix
    compact_store(store)
    assert damaged_paths(store) == []
    after = open_contents(store, opened)
    assert [row[:4] for row in after] == [row[:4] for row in before]
    assert [row[4] == old[4] for row, old in zip(after, before, strict=True)] == [True] * 4 + [False] * 4 + [True] * 2


def test_a_shard_with_deleted_passages_is_made_without_them(store, bundle, opened):
    delete_passages(store, [1, 3])
    before = open_contents(store, opened)
    damage(store / "shards" / "00000.safetensors")
    assert repair_store(store, bundle_directory=bundle, batch_tokens=60).renewed == ("shards/00000.safetensors",)
    after = open_contents(store, opened)
    assert [row[:4] for row in after] == [row[:4] for row in before]
    with MemoryStore.open(store, opened) as now:
        assert live_numbers(now) == [0, 2, *range(4, 10)]


def test_damaged_texts_are_written_from_the_corpus(store, bundle, corpus):
    before = tree(store)
    damage(store / "passages.sqlite")
    damage(store / "shards" / "00001.safetensors", "missing")
    assert "--corpus" in verify_store(store).damaged[1].fix
    with pytest.raises(OptionError, match="--corpus"):
        repair_store(store, bundle_directory=bundle)
    summary = repair_store(store, bundle_directory=bundle, corpus_path=corpus, batch_tokens=60)
    assert summary.restored == ("passages.sqlite", "shards/00001.safetensors")
    assert tree(store) == before


def test_texts_of_another_sqlite_make_a_generation(store, corpus, opened, monkeypatch):
    before = open_contents(store, opened)
    damage(store / "passages.sqlite")
    monkeypatch.setattr("glimmer_export.exporter.memory.texts.SETTINGS", ("PRAGMA page_size = 8192",))
    assert repair_store(store, corpus_path=corpus).renewed == ("passages.sqlite",)
    assert open_contents(store, opened) == before


@pytest.mark.parametrize("changed", [False, True])
def test_texts_are_not_written_from_another_corpus(store, corpus, tmp_path, changed):
    if changed:
        delete_passages(store, [1])
    else:
        corpus = write_rows(tmp_path / "other.jsonl", [{"id": index, "text": "w1"} for index in range(10)])
    damage(store / ("passages.00001.sqlite" if changed else "passages.sqlite"))
    before = tree(store)
    with pytest.raises(StoreError, match="SHA-256"):
        repair_store(store, corpus_path=corpus)
    assert tree(store) == before


def test_shards_need_a_bundle_of_the_same_kind(store, tmp_path):
    damage(store / "shards" / "00001.safetensors")
    before = tree(store)
    with pytest.raises(OptionError, match="--bundle"):
        repair_store(store)
    with pytest.raises(StoreError, match="memory encoder"):
        repair_store(store, bundle_directory=make_bundle(tmp_path / "other", checkpoint="b"))
    assert tree(store) == before


@pytest.mark.parametrize("what", ["passages.00002.sqlite", "manifest.json"])
def test_a_store_goes_back_to_what_is_whole(store, opened, what):
    delete_passages(store, [1])
    before = open_contents(store, opened)
    delete_passages(store, ["p2"])
    damage(store / what, "torn")
    if what == "manifest.json":  # or it could be restored
        damage(store / "replicas" / "00002.manifest")
    report = verify_store(store)
    assert [item.path for item in report.damaged] == [what]
    assert "--rollback" in report.damaged[0].fix
    summary = roll_back(store)
    assert (summary.generation, summary.back_to, summary.passages) == (3, 1, 9)
    assert summary.damaged_passages == (None if what == "manifest.json" else 8)
    assert open_contents(store, opened) == before
    delete_passages(store, ["p2"])
    compact_store(store)
    assert verify_store(store).damaged == ()
    assert len(open_contents(store, opened)) == 8
    assert not (store.parent / "store.partial").exists()


def test_there_is_no_way_back_from_a_whole_store_or_the_first_generation(store):
    with pytest.raises(OptionError, match="whole"):
        roll_back(store)
    damage(store / "passages.sqlite")
    with pytest.raises(StoreError, match="an older generation"):
        roll_back(store)
    assert not (store.parent / "store.partial").exists()


def test_damage_in_an_older_generation_alone_is_told_apart(store, opened):
    with MemoryStore.open(store, opened):
        delete_passages(store, [1])
        delete_passages(store, ["p2"])
        damage(store / "passages.00001.sqlite")
        (store / "manifests" / "00000.json").write_text("{")
        report = verify_store(store)
        assert [item.path for item in report.damaged] == ["manifests/00000.json", "passages.00001.sqlite"]
        assert all("compact" in item.fix for item in report.damaged)
    compact_store(store)
    assert verify_store(store).damaged == ()


def test_a_manifest_of_other_texts_is_damage(store):
    """Every digest is right, and yet the numbers are not those of the shards."""
    delete_passages(store, [1])
    older = json.loads((store / "manifests" / "00000.json").read_text())
    mine = json.loads((store / "manifest.json").read_text())["texts"][0]
    rewrite(store / "manifest.json", texts=[{**mine, "file": older["texts"][0]["file"]}])
    report = verify_store(store)
    assert [(item.path, item.found) for item in report.damaged] == [("passages.sqlite", "10 passages")]


def test_arrays_that_every_generation_names_are_copied(tmp_path):
    bundle = make_bundle(tmp_path / "bundle", codecs=("int8",))
    write_corpus(tmp_path / "corpus.jsonl", 3)
    build_store(bundle, tmp_path / "corpus.jsonl", tmp_path / "store", codec="int8")
    shutil.rmtree(tmp_path / "store" / "replicas")  # an earlier version built it
    damage(tmp_path / "store" / "codec.safetensors")
    (found,) = verify_store(tmp_path / "store").damaged
    assert (found.path, found.fix.split(",")[0]) == ("codec.safetensors", "copy it from another copy of the store")
