"""Codes of vectors that come to be stopped: nothing is trained or coded twice, and the codes are the same."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from glimmer_export.exporter.memory import build_store, delete_passages, index_store, quantise
from glimmer_export.exporter.memory.kept_codes import codes_folder
from glimmer_export.runtime.contract import OutputError, read_store_manifest
from tests.bundle_factory import tree, write_corpus

ROOT = Path(__file__).resolve().parents[2]
NUM_PASSAGES, DIMENSION, IN_A_SEGMENT = 600, 12, 200
KILLED = """
import os, signal, sys
from glimmer_export.exporter.memory import index_store, kept_codes, vectors
vectors.SEGMENT_PASSAGES = 200
replace, count = kept_codes.replace_file, 0
def kill(path, content):
    global count
    replace(path, content)
    count += 1
    if count == 2:
        os.kill(os.getpid(), signal.SIGKILL)
kept_codes.replace_file = kill
index_store(sys.argv[1], embeddings=sys.argv[2], search="ivfpq")
"""


@pytest.fixture(scope="module")
def made(bundle, tmp_path_factory):
    """A store, vectors, and the store with their codes."""
    folder = tmp_path_factory.mktemp("codes")
    write_corpus(folder / "corpus.jsonl", NUM_PASSAGES)
    build_store(bundle, folder / "corpus.jsonl", folder / "store")
    vectors = np.random.default_rng(3).standard_normal((NUM_PASSAGES, DIMENSION)).astype(np.float32)
    np.save(folder / "vectors.npy", vectors)
    shutil.copytree(folder / "store", folder / "indexed")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("glimmer_export.exporter.memory.vectors.SEGMENT_PASSAGES", IN_A_SEGMENT)
        index_store(folder / "indexed", embeddings=folder / "vectors.npy", search="ivfpq")
    assert len(read_store_manifest(folder / "indexed").vectors.segments) == 3
    assert not codes_folder(folder / "indexed").exists()
    return folder


@pytest.fixture
def store(made, tmp_path, monkeypatch):
    monkeypatch.setattr("glimmer_export.exporter.memory.vectors.SEGMENT_PASSAGES", IN_A_SEGMENT)
    return Path(shutil.copytree(made / "store", tmp_path / "store"))


@pytest.fixture
def counts(monkeypatch):
    """How often something was trained and coded; what would be coded after `stop` of them is stopped."""
    found = {"trained": 0, "coded": 0, "stop": 99}
    trained, coded = quantise._trained, quantise._coded

    def train(*arguments, **options):
        found["trained"] += 1
        return trained(*arguments, **options)

    def code(*arguments):
        if found["coded"] == found["stop"]:
            raise KeyboardInterrupt
        found["coded"] += 1
        return coded(*arguments)

    monkeypatch.setattr(quantise, "_trained", train)
    monkeypatch.setattr(quantise, "_coded", code)
    return found


def stopped(store, made, counts, after):
    before = tree(store)
    counts["stop"] = after
    with pytest.raises(KeyboardInterrupt):
        index_store(store, embeddings=made / "vectors.npy", search="ivfpq")
    assert tree(store) == before
    counts.update(trained=0, coded=0, stop=99)


def finished(store, made, counts, *, trained, coded):
    index_store(store, embeddings=made / "vectors.npy", search="ivfpq")
    assert (counts["trained"], counts["coded"]) == (trained, coded)
    assert tree(store) == tree(made / "indexed")
    assert [path.name for path in store.parent.iterdir()] == ["store"]


@pytest.mark.parametrize("after", [0, 2])
def test_it_goes_on_behind_what_is_kept_and_gives_the_same(made, store, counts, after):
    stopped(store, made, counts, after)
    assert len(list(codes_folder(store).iterdir())) == 1 + after
    finished(store, made, counts, trained=0, coded=3 - after)


def test_a_killed_one_goes_on_too(made, store, counts):
    command = [sys.executable, "-c", KILLED, store, made / "vectors.npy"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == -signal.SIGKILL
    finished(store, made, counts, trained=0, coded=2)


@pytest.mark.parametrize("damage", ["cut", "longer", "changed", "empty", "absent"])
def test_what_is_damaged_is_made_again(made, store, counts, damage):
    stopped(store, made, counts, 2)
    for path in codes_folder(store).iterdir():
        content = path.read_bytes()
        if damage == "absent":
            path.unlink()
        else:
            path.write_bytes({
                "cut": content[:-4], "longer": content + b"x" * 5000, "empty": b"",
                "changed": content[:-1] + bytes([content[-1] ^ 1]),
            }[damage])
    finished(store, made, counts, trained=1, coded=3)


def test_a_part_under_the_name_of_another_is_made_again(made, store, counts):
    stopped(store, made, counts, 2)
    one, other = (path for path in codes_folder(store).iterdir() if b"codebooks" not in path.read_bytes())
    shutil.copyfile(one, other)
    finished(store, made, counts, trained=0, coded=2)


def test_what_was_kept_of_other_vectors_is_not_taken(made, store, counts, tmp_path):
    stopped(store, made, counts, 2)
    delete_passages(store, [1])
    index_store(store, embeddings=other_vectors(made, tmp_path), search="ivfpq")
    assert (counts["trained"], counts["coded"]) == (1, 3)
    assert not codes_folder(store).exists()


def other_vectors(made, folder):
    np.save(folder / "other.npy", np.load(made / "vectors.npy")[1:])
    return folder / "other.npy"


def test_nothing_is_written_through_a_link(made, store, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    codes_folder(store).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="found a link"):
        index_store(store, embeddings=made / "vectors.npy", search="ivfpq")
    assert list((tmp_path / "elsewhere").iterdir()) == []
