"""An index by a sentence encoder that is stopped goes on: nothing is encoded twice, and the vectors are the same."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from glimmer_export.exporter.memory import append_passages, build_store, index_store, kept_vectors
from glimmer_export.exporter.memory.kept_vectors import kept_folder
from glimmer_export.runtime.contract import OutputError
from glimmer_export.runtime.retrieval.encoder import SentenceEncoder
from tests.bundle_factory import tree, write_corpus, write_rows
from tests.encoder_factory import make_encoder

ROOT = Path(__file__).resolve().parents[2]
NUM_PASSAGES, BATCH, PART = 100, 1, 16
KILLED = """
import os, signal, sys
from glimmer_export.exporter.memory import index_store, kept_vectors
kept_vectors.PART_PASSAGES = 16
keep = kept_vectors.KeptVectors._keep
def kill(self, path, content):
    keep(self, path, content)
    if path.name == "00002.part":
        os.kill(os.getpid(), signal.SIGKILL)
kept_vectors.KeptVectors._keep = kill
index_store(sys.argv[1], encoder=sys.argv[2], batch_size=1)
"""


@pytest.fixture(scope="module")
def made(bundle, tmp_path_factory):
    """A store, an encoder, and the store with its vectors."""
    folder = tmp_path_factory.mktemp("kept")
    write_corpus(folder / "corpus.jsonl", NUM_PASSAGES)
    build_store(bundle, folder / "corpus.jsonl", folder / "store")
    encoder = make_encoder(folder / "encoder")
    shutil.copytree(folder / "store", folder / "indexed")
    index_store(folder / "indexed", encoder=encoder, batch_size=BATCH)
    return folder


@pytest.fixture
def store(made, tmp_path, monkeypatch):
    monkeypatch.setattr(kept_vectors, "PART_PASSAGES", PART)
    return Path(shutil.copytree(made / "store", tmp_path / "store"))


@pytest.fixture
def asked(monkeypatch):
    """How many passages come to be encoded; from `stop` on, none does."""
    counts = {"passages": 0, "stop": NUM_PASSAGES * 10}
    encode = SentenceEncoder.passages

    def counted(self, passages):
        if counts["passages"] >= counts["stop"]:
            raise KeyboardInterrupt
        counts["passages"] += len(passages)
        return encode(self, passages)

    monkeypatch.setattr(SentenceEncoder, "passages", counted)
    return counts


def stopped_index(store, encoder, asked, after):
    asked["stop"] = after
    with pytest.raises(KeyboardInterrupt):
        index_store(store, encoder=encoder, batch_size=BATCH)
    asked.update(passages=0, stop=NUM_PASSAGES * 10)


def test_it_goes_on_behind_what_is_kept_and_gives_the_same(made, store, asked):
    stopped_index(store, made / "encoder", asked, 40)
    assert sorted(path.name for path in kept_folder(store).iterdir()) == ["00000.part", "00001.part", "plan.json"]
    assert tree(store) == tree(made / "store")
    index_store(store, encoder=made / "encoder", batch_size=BATCH)
    assert asked["passages"] == NUM_PASSAGES - 2 * PART
    assert tree(store) == tree(made / "indexed")
    assert not kept_folder(store).exists()


def test_a_killed_one_goes_on_too(made, store, asked):
    done = subprocess.run([sys.executable, "-c", KILLED, store, made / "encoder"], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    index_store(store, encoder=made / "encoder", batch_size=BATCH)
    assert asked["passages"] == NUM_PASSAGES - 3 * PART
    assert tree(store) == tree(made / "indexed")
    assert [path.name for path in store.parent.iterdir()] == ["store"]


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "absent"])
def test_a_damaged_part_is_encoded_again(made, store, asked, damage):
    stopped_index(store, made / "encoder", asked, 40)
    path = kept_folder(store) / "00001.part"
    content = path.read_bytes()
    if damage == "absent":
        path.unlink()
    else:
        changed = {"cut": content[:-4], "changed": content[:-1] + bytes([content[-1] ^ 1]), "empty": b""}
        path.write_bytes(changed[damage])
    index_store(store, encoder=made / "encoder", batch_size=BATCH)
    assert asked["passages"] == NUM_PASSAGES - PART
    assert tree(store) == tree(made / "indexed")


def test_parts_of_other_passages_are_encoded_again(made, bundle, store, asked, tmp_path):
    stopped_index(store, made / "encoder", asked, 40)
    rows = [{"id": 3, "title": "another", "text": "w1 w2"}]
    append_passages(store, bundle, write_rows(tmp_path / "new.jsonl", rows), replace=True)
    asked["passages"] = 0
    index_store(store, encoder=made / "encoder", batch_size=BATCH)
    assert asked["passages"] == NUM_PASSAGES
    assert not kept_folder(store).exists()


def test_what_was_begun_otherwise_is_not_thrown_away(made, store, asked, tmp_path):
    stopped_index(store, made / "encoder", asked, 40)
    before = tree(tmp_path)
    with pytest.raises(OutputError, match="batch_size 2, as asked for, found 1; index as it was begun, or remove"):
        index_store(store, encoder=made / "encoder", batch_size=2)
    other = tmp_path / "other"
    shutil.copytree(made / "encoder", other)
    settings = json.loads((other / "encoder.json").read_text(encoding="utf-8"))
    (other / "encoder.json").write_text(json.dumps({**settings, "passage_prefix": "other: "}), encoding="utf-8")
    with pytest.raises(OutputError, match="settings"):
        index_store(store, encoder=other, batch_size=BATCH)
    shutil.rmtree(other)
    assert tree(tmp_path) == before


def test_nothing_is_written_through_a_link(made, store, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    kept_folder(store).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="found a link"):
        index_store(store, encoder=made / "encoder")
    assert not [*(tmp_path / "elsewhere").iterdir()]


def test_an_encoder_does_not_lie_where_the_work_is(made, store):
    kept_folder(store).mkdir()
    encoder = shutil.copytree(made / "encoder", kept_folder(store) / "encoder")
    with pytest.raises(OutputError, match="apart"):
        index_store(store, encoder=encoder)
