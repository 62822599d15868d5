"""A bundle, a store, a checkpoint or a corpus in another's place is called what it is, with what it is for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from glimmer_export.runtime.contract import BundleError, CheckpointError, CorpusError, QuestionFileError, StoreError
from glimmer_export.runtime.contract.kinds import kind_of
from tests.bundle_factory import write_rows

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FOUND = {
    "bundle": "a bundle", "store": "a memory store", "checkpoint": "a checkpoint", "t5": "a T5 checkpoint",
    "corpus.jsonl": "a file", "empty": "another folder", "absent": "nothing of that name",
}
FOLDERS = {"bundle": "bundle", "store-int8": "store", "checkpoint": "checkpoint"}
NEXT = {
    "bundle": "`glimmer-export inspect ", "store": "`glimmer-export memory verify ",
    "checkpoint": "`glimmer-export export ",
}
ASKED = "--store store --questions questions.jsonl"
FOR_BUNDLES = [
    "inspect X", "lint X --target cpu", "cost --bundle X", "ask X w20 --store store", f"answer X {ASKED}",
    f"calibrate X {ASKED}", "quantize X -o out", f"parity X --reference bundle {ASKED}",
    f"parity bundle --reference X {ASKED}", "memory build X --corpus corpus.jsonl -o out",
    "memory append store --bundle X --corpus corpus.jsonl", "memory repair store --bundle X",
]
FOR_STORES = [
    "ask bundle w20 --store X", "memory stats X", "memory verify X", "memory repair X", "memory repair X --rollback",
    "memory delete X --id 1", "memory append X --bundle bundle --corpus corpus.jsonl", "memory compact X",
    "memory convert X -o out --codec fp16", "memory index X --embeddings v.npy", "memory index X --encoder encoder",
]
FOR_CHECKPOINTS = ["export X -o out", f"parity bundle --checkpoint X {ASKED}"]
FOR_OTHERS = [
    ("convert X -o out --from huggingface", CheckpointError), ("convert X -o out --from fid", CheckpointError),
    ("convert X -o out --from t5x --config config.json", CheckpointError),
    ("memory build bundle --corpus X -o out", CorpusError),
    ("answer bundle --store store --questions X", QuestionFileError),
    ("calibrate bundle --store store --questions X", QuestionFileError),
]


@pytest.fixture
def places(tmp_path, monkeypatch) -> Path:
    for name, place in FOLDERS.items():
        shutil.copytree(GOLDEN / name, tmp_path / place)
    for name in ("empty", "t5"):
        (tmp_path / name).mkdir()
    (tmp_path / "t5" / "config.json").write_text(json.dumps({"model_type": "t5"}), encoding="utf-8")
    write_rows(tmp_path / "corpus.jsonl", [{"id": 900, "title": "w1", "text": "w2 w3"}])
    write_rows(tmp_path / "questions.jsonl", [{"question": "w20", "answers": ["w1"]}])
    shutil.copy(GOLDEN / "checkpoint" / "config.json", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_what_a_path_is_of(places):
    assert {name: kind_of(Path(name)) for name in FOUND} == FOUND
    for name in FOLDERS.values():  # a damaged manifest does not make a bundle something else
        for path in Path(name).glob("*.json"):
            path.write_bytes(b"{")
    assert [kind_of(Path(name)) for name in FOLDERS.values()] == ["a bundle", "a memory store", None]


def refuses(refused, error, command, kinds):
    for kind in kinds:
        message = refused(error, *(kind if word == "X" else word for word in command.split()))
        assert f"found {FOUND[kind]}; " in message
        assert NEXT.get(kind, "") in message


@pytest.mark.parametrize("command", FOR_BUNDLES)
def test_where_a_bundle_is_wanted(refused, places, command):
    refuses(refused, BundleError, command, [*FOUND][1:] if command == "inspect X" else ["store", "checkpoint"])


@pytest.mark.parametrize("command", FOR_STORES)
def test_where_a_store_is_wanted(refused, places, command):
    kinds = [kind for kind in FOUND if kind != "store"]
    refuses(refused, StoreError, command, kinds if "verify" in command else ["bundle", "checkpoint"])


@pytest.mark.parametrize("command", FOR_CHECKPOINTS)
def test_where_a_checkpoint_is_wanted(refused, places, command):
    refuses(refused, CheckpointError, command, ["bundle", "store", "corpus.jsonl", "empty", "absent"])


def test_where_a_t5_is_wanted(refused, places):
    refuses(refused, CheckpointError, "init -o out --from-t5 X", ["bundle", "store", "checkpoint", "empty", "absent"])
    refuses(refused, CheckpointError, "init -o out --from-fid X", ["bundle", "store", "empty", "absent"])


@pytest.mark.parametrize(("command", "error"), FOR_OTHERS)
def test_where_what_others_wrote_is_wanted(refused, places, command, error):
    refuses(refused, error, command, ["bundle", "store", "checkpoint"])
