"""No change of a store, nor a build, writes, renames or deletes through a link: what is behind it stays as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from glimmer_export.exporter.memory import (
    append_passages,
    build_store,
    compact_store,
    convert_store,
    delete_passages,
    index_store,
    renew_index,
    repair_store,
    roll_back,
    verify_store,
)
from glimmer_export.exporter.memory import commit as commit_module
from glimmer_export.exporter.memory.runners.ray_driver import _count_attempt
from glimmer_export.exporter.memory.work import work_directory
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import OutputError, StoreError
from tests.bundle_factory import tree, write_corpus, write_rows
from tests.memory.contents import open_contents

SMALL = {"passages_per_shard": 4, "batch_tokens": 60}
NUM_PASSAGES = 10


@pytest.fixture(scope="module")
def built(bundle, tmp_path_factory):
    """A store of three generations with vectors: it has every folder that a store may have."""
    folder = tmp_path_factory.mktemp("built")
    write_corpus(folder / "corpus.jsonl", NUM_PASSAGES)
    store = folder / "store"
    build_store(bundle, folder / "corpus.jsonl", store, index="tantivy", **SMALL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commit_module, "INLINE_TOMBSTONES", 0)
        delete_passages(store, ["p0"])
    np.save(folder / "vectors.npy", np.ones((NUM_PASSAGES - 1, 4), np.float32))
    index_store(store, embeddings=folder / "vectors.npy")
    return store


@pytest.fixture
def store(built, tmp_path):
    return shutil.copytree(built, tmp_path / "store")


@pytest.fixture
def changes(bundle, store, built):
    corpus, vectors = built.parent / "corpus.jsonl", built.parent / "vectors.npy"
    more = write_rows(store.parent / "more.jsonl", [{"id": "new", "text": "w1"}])
    return {
        "append": lambda: append_passages(store, bundle, more, batch_tokens=60),
        "delete": lambda: delete_passages(store, ["p2"]),
        "compact": lambda: compact_store(store),
        "repair": lambda: repair_store(store, bundle_directory=bundle, corpus_path=corpus, batch_tokens=60),
        "roll back": lambda: roll_back(store),
        "index": lambda: renew_index(store),
        "vectors": lambda: index_store(store, embeddings=vectors, overwrite=True),
    }


def move_out(store: Path, name: str) -> Path:
    """Leave a link in a file's or folder's place."""
    outside = store.parent / "outside" / Path(name).name
    outside.parent.mkdir()
    (store / name).rename(outside)
    (store / name).symlink_to(outside)
    return outside


@pytest.mark.parametrize("change", ["append", "delete", "compact", "repair", "roll back", "index"])
@pytest.mark.parametrize(
    "name", [
        "shards", "manifests", "replicas", "texts", "segments", "segments/00000-00000", "vectors", "manifest.json",
        "texts/00000-00000.sqlite", "shards/00000.safetensors", "manifests/00001.json",
    ],
)
def test_a_store_with_a_link_in_it_is_not_changed(store, changes, change, name):
    outside = move_out(store, name)
    if change == "roll back":
        path = store / "texts" / "00000-00000.sqlite"
        path.write_bytes(path.read_bytes()[:-1])
    before = tree(store.parent)
    with pytest.raises(StoreError, match=f"{name}: expected a file or folder of its own.*found a link to {outside}"):
        changes[change]()
    assert tree(store.parent) == before
    assert (store / name).is_symlink()


@pytest.mark.parametrize("name", ["vectors", "vectors/00002-00000.npy"])
def test_vectors_behind_a_link_are_not_replaced(store, changes, name):
    move_out(store, name)
    before = tree(store.parent)
    with pytest.raises(StoreError, match="found a link to"):
        changes["vectors"]()
    assert tree(store.parent) == before


def test_a_store_that_is_given_by_a_link_is_changed_where_it_is(store, bundle, tmp_path):
    (tmp_path / "link").symlink_to("store")
    assert delete_passages(tmp_path / "link", ["p2"]).generation == 3
    assert (tmp_path / "link").is_symlink()
    assert verify_store(store).generation == 3
    build_store(bundle, write_rows(tmp_path / "c.jsonl", [{"id": 1, "text": "w1"}]), tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert verify_store(store).generation == 0


@pytest.mark.parametrize("name", [".manifest.json.tmp", ".manifest.json.0123456789abcdef.tmp"])
def test_a_link_where_an_unfinished_file_might_be_is_removed_itself(store, changes, tmp_path, name):
    (tmp_path / "victim").write_text("mine", encoding="utf-8")
    (store / name).symlink_to("../victim")
    changes["compact"]()
    assert not (store / name).is_symlink()
    assert (tmp_path / "victim").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("name", ["", "store", "store/shards", "records", "workers", "staged", "lock", "plan.json"])
@pytest.mark.parametrize("how", ["build", "append"])
def test_a_link_in_the_directory_of_the_work_is_not_followed(bundle, corpus, store, changes, tmp_path, how, name):
    outside, partial = tmp_path / "outside", tmp_path / ("new.partial" if how == "build" else "store.partial")
    outside.mkdir()
    (outside / "mine.txt").write_text("mine", encoding="utf-8")
    link = partial / name if name else partial
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(outside / "mine.txt" if name in ("lock", "plan.json") else outside)
    before = tree(tmp_path)
    with pytest.raises(OutputError):
        build_store(bundle, corpus, tmp_path / "new", **SMALL) if how == "build" else changes["append"]()
    (partial / "lock").unlink(missing_ok=True) if name else None
    assert tree(outside) == {"mine.txt": before["outside/mine.txt"]}
    assert not (tmp_path / "new").exists()


def test_restarted_work_removes_a_link_itself(bundle, corpus, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "mine.txt").write_text("mine", encoding="utf-8")
    (tmp_path / "new.partial").mkdir()
    (tmp_path / "new.partial" / "store").symlink_to(outside)
    build_store(bundle, corpus, tmp_path / "new", restart=True, **SMALL)
    assert [path.name for path in outside.iterdir()] == ["mine.txt"]
    assert not (tmp_path / "new.partial").exists()


def test_links_where_files_were_once_written_are_not_written_through(bundle, corpus, tmp_path, monkeypatch):
    """Earlier versions wrote under these names."""
    (tmp_path / "victim").write_text("mine", encoding="utf-8")
    build_store(bundle, corpus, tmp_path / "expected", **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr("glimmer_export.exporter.memory.runners.job.encode_shard", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            build_store(bundle, corpus, tmp_path / "new", **SMALL)
    for name in ("shards/.00000.safetensors", ".passages.sqlite", ".manifest.json", "../.plan.json"):
        (tmp_path / "new.partial" / "store" / f"{name}.tmp").symlink_to(tmp_path / "victim")
    build_store(bundle, corpus, tmp_path / "new", **SMALL)
    assert (tmp_path / "victim").read_text(encoding="utf-8") == "mine"
    assert tree(tmp_path / "new") == tree(tmp_path / "expected")


def test_a_store_of_links_is_converted_to_one_of_files(store, bundle, tmp_path):
    """As a download cache lays files out."""
    expected = open_contents(store, Bundle.open(bundle))
    for path in [path for path in store.rglob("*") if path.is_file()]:
        blob = tmp_path / "blobs" / "-".join(path.relative_to(store).parts)
        blob.parent.mkdir(exist_ok=True)
        path.rename(blob)
        path.symlink_to(blob)
    before = tree(tmp_path / "blobs")
    convert_store(store, tmp_path / "converted", "int8")
    made = [path for path in (tmp_path / "converted").rglob("*") if not path.is_dir() or path.is_symlink()]
    assert made
    assert not [path for path in made if path.is_symlink() or path.stat().st_nlink > 1]
    delete_passages(tmp_path / "converted", ["p2"])
    assert tree(tmp_path / "blobs") == before
    assert open_contents(store, Bundle.open(bundle)) == expected


def test_a_worker_on_ray_counts_its_attempts_through_no_link(tmp_path):
    (tmp_path / "victim").write_text("mine", encoding="utf-8")
    (tmp_path / "00000").symlink_to("victim")
    with pytest.raises(OSError, match="symbolic links"):
        _count_attempt(tmp_path / "00000", 0)
    assert (tmp_path / "victim").read_text(encoding="utf-8") == "mine"


def test_what_others_call_partial_is_left_alone(tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / ".mine.tmp").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match=r"found \.mine\.tmp"), work_directory(tmp_path / "out") as work:
        work.check_ours()
    assert (tmp_path / "out.partial" / ".mine.tmp").exists()
