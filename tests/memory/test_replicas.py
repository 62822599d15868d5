"""A byte that flips in a store's manifest or in its codec's arrays is told, and mended by the replica in the store."""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
from pathlib import Path

import pytest

from glimmer_export.exporter.memory import (
    append_passages,
    build_store,
    compact_store,
    convert_store,
    delete_passages,
    repair_store,
    roll_back,
    verify_store,
)
from glimmer_export.exporter.memory.generations import damaged_replicas, mend_copies, mend_manifest, mend_replicas
from glimmer_export.exporter.memory.verify import damaged_files
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import OutputError, StoreError, read_store_manifest
from glimmer_export.runtime.store import MemoryStore
from tests.bundle_factory import make_bundle, tree, write_corpus, write_rows

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
PATTERNS = (0x01, 0x20, 0x80, 0xFF)
"""Another digit or letter, another case, no ASCII any more, all bits."""
GUARDED = ["manifest.json", "codec.safetensors", "replicas/00002.manifest", "replicas/codec.safetensors"]


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("int8") / "bundle", codecs=("int8",))


@pytest.fixture(scope="module")
def built(int8, tmp_path_factory):
    """A store of three generations, the current one with a codec, tombstones and two shards."""
    folder = tmp_path_factory.mktemp("built")
    write_corpus(folder / "corpus.jsonl", 6)
    store = folder / "store"
    build_store(int8, folder / "corpus.jsonl", store, codec="int8", passages_per_shard=4)
    delete_passages(store, [1])
    append_passages(store, int8, write_rows(folder / "new.jsonl", [{"id": "new", "text": "w1 w2"}]))
    return store


@pytest.fixture
def store(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / "store"))


def flip(path, position, pattern=1):
    content = bytearray(path.read_bytes())
    content[position] ^= pattern
    path.write_bytes(content)


def damaged_paths(store):
    return [item.path for item in verify_store(store).damaged]


def check_flip(store, bundle, name, place, pattern, before):
    """By all that a user has: it is told when the store is verified or opened, and a repair brings every byte back."""
    flip(store / name, place, pattern)
    (damage,) = verify_store(store).damaged
    assert (damage.path, f"memory repair {store}" in damage.fix) == (name, True), (place, pattern)
    if not name.startswith("replicas"):
        with pytest.raises(StoreError, match=f"memory repair {store}"):
            MemoryStore.open(store, bundle)
    assert repair_store(store).restored == (name,), (place, pattern)
    assert tree(store) == before, (place, pattern)


@pytest.mark.parametrize("name", GUARDED)
def test_a_flipped_byte_is_told_and_mended(store, int8, name):
    opened, before = Bundle.open(int8), tree(store)
    for place in random.sample(range((store / name).stat().st_size), 20):
        check_flip(store, opened, name, place, random.choice(PATTERNS), before)
    assert not (store.parent / "store.partial").exists()


def mends_manifest(store, manifest, name):
    with pytest.raises(StoreError, match=f"memory repair {store}"):
        read_store_manifest(store)
    return [name] if mend_manifest(store) else []


def mends_codec(store, manifest, name):
    others = {entry.path for entry in manifest.files()} - {name}
    (damage,) = damaged_files(store, manifest, seen=others)
    assert damage.fix == f"restore it with `glimmer-export memory repair {store}`"
    return mend_copies(store, manifest)


def mends_replicas(store, manifest, name):
    assert damaged_replicas(store, manifest) == [name]
    return mend_replicas(store, manifest)


MENDERS = {"manifest.json": mends_manifest, "codec.safetensors": mends_codec}


@pytest.mark.slow
@pytest.mark.parametrize("name", GUARDED)
def test_every_byte_that_flips_is_told_and_mended(store, int8, name):
    """Each with one pattern, by what looks at its file alone, and some with all patterns by the whole of the store."""
    opened, before, manifest = Bundle.open(int8), tree(store), read_store_manifest(store)
    content, mends = (store / name).read_bytes(), MENDERS.get(name, mends_replicas)
    for place in range(len(content)):
        flip(store / name, place, PATTERNS[place % len(PATTERNS)])
        assert mends(store, manifest, name) == [name], place
        assert (store / name).read_bytes() == content, place
    assert tree(store) == before
    for place in random.sample(range(len(content)), 8):
        for pattern in PATTERNS:
            check_flip(store, opened, name, place, pattern, before)


READERS = {
    "open": lambda store, bundle, out: MemoryStore.open(store, Bundle.open(bundle)),
    "open unverified": lambda store, bundle, out: MemoryStore.open(store, Bundle.open(bundle), verify=False),
    "append": lambda store, bundle, out: append_passages(store, bundle, out.with_name("corpus.jsonl")),
    "delete": lambda store, bundle, out: delete_passages(store, [2]),
    "compact": lambda store, bundle, out: compact_store(store),
    "convert": lambda store, bundle, out: convert_store(store, out, "fp16"),
    "roll back": lambda store, bundle, out: roll_back(store),
}
MENDED = {
    "codec.safetensors": "restore it with `glimmer-export memory repair {store}`",
    "shards/00001.safetensors": "encode it again with `glimmer-export memory repair {store} --bundle BUNDLE`",
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", MENDED)
def test_whoever_finds_a_damaged_file_says_what_mends_it(store, int8, tmp_path, name, reader):
    delete_passages(store, ["new"])
    if reader == "roll back" and name != "codec.safetensors":
        shutil.rmtree(store / "manifests")  # no older generation is left
    write_corpus(tmp_path / "corpus.jsonl", 2)
    (store / name).write_bytes(b"cut short")
    with pytest.raises(StoreError) as raised:
        READERS[reader](store, int8, tmp_path / "out")
    again = MENDED[name].format(store=store)
    assert raised.value.fix.startswith(again)
    (found,) = [item for item in verify_store(store).damaged if item.path == name]
    assert found.fix == again


def test_damage_that_nothing_mends_alone_is_no_case_for_repair(store, int8):
    (store / "passages.00002.sqlite").write_bytes(b"cut short")
    with pytest.raises(StoreError, match=r"memory repair .* --rollback`, copy the store again, or build it again"):
        MemoryStore.open(store, Bundle.open(int8))
    shutil.rmtree(store / "manifests")
    with pytest.raises(StoreError, match="build the store again"):
        roll_back(store)


def test_a_manifest_that_is_gone_comes_back(store):
    before = tree(store)
    (store / "manifest.json").unlink()
    assert damaged_paths(store) == ["manifest.json"]
    assert repair_store(store).restored == ("manifest.json",)
    assert tree(store) == before


def test_an_edited_manifest_is_a_damaged_one(store):
    """Valid JSON, with fields that a writer might give."""
    content = (store / "manifest.json").read_text(encoding="utf-8")
    (store / "manifest.json").write_text(content.replace('"num_truncated": 0', '"num_truncated": 1'), encoding="utf-8")
    assert content != (store / "manifest.json").read_text(encoding="utf-8")
    before = tree(store)
    for change in (lambda: delete_passages(store, ["new"]), lambda: compact_store(store)):
        with pytest.raises(StoreError, match=r"bytes of SHA-256 \w+; run `glimmer-export memory repair"):
            change()
    assert tree(store) == before


@pytest.mark.parametrize("how", ["flipped", "torn", "as one"])
def test_a_manifest_and_its_replica_both_damaged(store, int8, how):
    """Neither is taken for sound, nor an older generation for the current one; there is a way back."""
    manifest, replica = store / "manifest.json", store / "replicas" / "00002.manifest"
    if how == "as one":  # what no accident makes: the replica's copy is the same, its digest is not
        manifest.write_bytes(manifest.read_bytes().replace(b'"num_tokens": ', b'"num_tokens":  ', 1))
        replica.write_bytes(replica.read_bytes()[:65] + manifest.read_bytes() + b" ")
    elif how == "torn":
        manifest.write_bytes(manifest.read_bytes()[:-9])
        replica.write_bytes(replica.read_bytes()[:-9])
    else:
        flip(manifest, manifest.read_bytes().index(b'"num_passages": 6') + 16, 1)
        flip(replica, 300)
    with pytest.raises(StoreError, match="its replica is damaged too"):
        repair_store(store)
    with pytest.raises(StoreError, match="--rollback"):
        MemoryStore.open(store, Bundle.open(int8))
    assert damaged_paths(store) == ["manifest.json"]
    assert roll_back(store).back_to == 1
    assert damaged_paths(store) == []


def test_codec_arrays_and_their_replica_both_damaged(store):
    for name in ("codec.safetensors", "replicas/codec.safetensors"):
        flip(store / name, 70)
    assert damaged_paths(store) == ["codec.safetensors", "replicas/codec.safetensors"]
    with pytest.raises(StoreError, match="another copy of the store"):
        repair_store(store)


def test_every_change_keeps_a_replica_for_each_generation(store, int8, tmp_path):
    def replicas():
        return sorted(path.name for path in (store / "replicas").iterdir())

    assert replicas() == ["00001.manifest", "00002.manifest", "codec.safetensors"]
    flip(store / "passages.00002.sqlite", 5000)
    assert roll_back(store).generation == 3
    compact_store(store)  # with something to pack
    assert replicas() == ["00004.manifest", "codec.safetensors"]
    assert verify_store(store).unnamed == ()
    convert_store(store, tmp_path / "fp16", "fp16")
    assert [path.name for path in (tmp_path / "fp16" / "replicas").iterdir()] == ["00004.manifest"]
    for directory in (store, tmp_path / "fp16"):
        before = tree(directory)
        flip(directory / "manifest.json", 200)
        repair_store(directory)
        assert tree(directory) == before


@pytest.mark.parametrize("mend", [repair_store, compact_store])
def test_a_damaged_manifest_of_an_older_generation_is_told_and_mended(store, mend):
    path, before = store / "manifests" / "00001.json", tree(store)
    flip(path, path.read_bytes().index(b"num_truncated") + 16)  # another number, of which no rule speaks
    (damage,) = verify_store(store).damaged
    assert (damage.path, f"memory repair {store}" in damage.fix) == ("manifests/00001.json", True)
    mend(store)
    assert damaged_paths(store) == []
    assert mend is compact_store or tree(store) == before


def test_a_damaged_manifest_that_a_process_holds_stays(store):
    """Its lock is what keeps the files of the generation."""
    path = store / "manifests" / "00001.json"
    flip(path, 5)
    with path.open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert repair_store(store).restored == ()
        assert os.fstat(held.fileno()).st_ino == path.stat().st_ino
    assert repair_store(store).restored == ("manifests/00001.json",)


UNREADABLE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(b"0123456789abcdef" * 2),
    "zeros": lambda path: path.write_bytes(bytes(512)),
    "FIFO": lambda path: (path.unlink(), os.mkfifo(path)),
    "device": lambda path: (path.unlink(), path.symlink_to("/dev/zero")),
}


@pytest.mark.parametrize("name", ["replicas/00002.manifest", "replicas/00001.manifest", "replicas/codec.safetensors"])
@pytest.mark.parametrize("how", UNREADABLE)
def test_a_replica_that_cannot_be_read_does_not_cost_the_store(store, int8, name, how):
    before = tree(store)
    UNREADABLE[how](store / name)
    MemoryStore.open(store, Bundle.open(int8)).close()
    assert damaged_paths(store) == [name]
    if how == "device":  # a link, which a change leaves alone
        (store / name).unlink()
    repair_store(store)
    assert damaged_paths(store) == []
    assert how == "device" or tree(store) == before


@pytest.mark.parametrize("name", ["manifest.json", "codec.safetensors", "replicas/codec.safetensors"])
def test_a_folder_in_the_place_of_a_file_is_named(store, name):
    (store / name).unlink()
    (store / name).mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        repair_store(store)


@pytest.mark.parametrize("step", ["the replica alone", "all"])
def test_a_change_that_was_stopped_between_the_two(store, step, monkeypatch):
    """The store is what it was; what is left of the change goes with the next."""
    from glimmer_export.exporter.memory import generations

    real, written = generations.replace_file, []

    def stop(path, content):
        if written or step != "all":
            real(path, content)
        written.append(path.name)
        if len(written) == (1 if step == "all" else 2):
            raise KeyboardInterrupt

    before = (store / "manifest.json").read_bytes()
    (store / "replicas" / "codec.safetensors").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(generations, "replace_file", stop)
        with pytest.raises(KeyboardInterrupt):
            delete_passages(store, ["new"])
    assert (store / "manifest.json").read_bytes() == before
    assert (store / "replicas" / "00003.manifest").exists() == (step != "all")
    assert verify_store(store).damaged == ()
    assert delete_passages(store, ["new"]).generation == 3
    report = verify_store(store)
    assert (report.damaged, report.unnamed) == ((), ())


@pytest.mark.parametrize("compacted", [False, True])
def test_a_version_without_replicas_may_have_changed_the_store(store, compacted):
    """Its manifest has none, and an earlier generation's does not speak against it."""
    replicas = {path.name: path.read_bytes() for path in (store / "replicas").iterdir()}
    delete_passages(store, ["new"])
    if compacted:
        compact_store(store)
    shutil.rmtree(store / "replicas")
    (store / "replicas").mkdir()
    for name, content in replicas.items():
        (store / "replicas" / name).write_bytes(content)
    assert read_store_manifest(store).generation == 3 + compacted
    assert delete_passages(store, ["p0"]).generation == 4 + compacted
    assert damaged_paths(store) == []


def test_an_earlier_store_gets_its_replicas_with_the_next_change_or_repair(tmp_path):
    for name, change in (("repaired", repair_store), ("changed", lambda store: delete_passages(store, [1]))):
        store = Path(shutil.copytree(GOLDEN / "store-int8", tmp_path / name))
        assert damaged_paths(store) == []
        change(store)
        generation = json.loads((store / "manifest.json").read_text(encoding="utf-8"))["generation"]
        names = {path.name for path in (store / "replicas").iterdir()}
        assert names == {"codec.safetensors", f"{generation:05d}.manifest"}
        assert damaged_paths(store) == []
