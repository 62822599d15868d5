"""A training goes on from its own state alone; any other, and a damaged one, is an error with a name."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from rich.console import Console

from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.training import train as train_module
from glimmer_export.exporter.training.state import save_state
from glimmer_export.exporter.training.train import TrainingData, train_checkpoint
from glimmer_export.runtime.contract import OutputError
from tests.small_files import small_files
from tests.training.short import short_recipe


class StopError(Exception):
    """Where a training is interrupted."""


def save_and_stop(*arguments: object) -> None:
    save_state(*arguments)
    raise StopError


def silent() -> Console:
    return Console(file=io.StringIO())


@pytest.fixture
def train():
    """Trains by the short recipe, fields of it changed, and gives what was told."""

    def trained(output: Path, *, seed: int = 0, architecture: str = "glimmer", **changes: object) -> str:
        text = io.StringIO()
        console = Console(file=text, width=200)
        recipe = short_recipe(**changes)
        train_checkpoint(
            None, TrainingData(), recipe, output, architecture=architecture, seed=seed, device="cpu", console=console
        )
        return text.getvalue()

    return trained


@pytest.fixture(scope="module")
def left(tmp_path_factory) -> Path:
    """The folder that a training left which was stopped after its first phase."""
    output = tmp_path_factory.mktemp("unfinished") / "out"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train_module, "save_state", save_and_stop)
        with pytest.raises(StopError):
            train_checkpoint(None, TrainingData(), short_recipe(), output, device="cpu", console=silent())
    return output.with_name("out.training")


@pytest.fixture
def unfinished(left, tmp_path) -> Path:
    """A copy of it beside what will be the output."""
    return shutil.copytree(left, tmp_path / "out.training")


def test_a_training_goes_on_and_ends_with_the_same_weights(train, unfinished, tmp_path):
    train(tmp_path / "out")
    train(tmp_path / "whole")
    resumed, whole = (read_checkpoint(tmp_path / name).tensors for name in ("out", "whole"))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "whole"}
    logs = [told(tmp_path / name) for name in ("out", "whole")]
    assert logs[0] == logs[1]
    assert [line["step"] for line in logs[0]] == [1, 2, 3, 4]


def told(checkpoint: Path) -> list[dict[str, float]]:
    """The lines of a checkpoint's log, without their times."""
    lines = map(json.loads, (checkpoint / "training" / "log.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def test_lengths_of_a_recipe_are_the_checkpoints_from_then_on(train, tmp_path):
    train(tmp_path / "out", steps=1, question_length=20, passage_length=48)
    config = read_checkpoint(tmp_path / "out").config
    assert (config.question_length, config.passage_length) == (20, 48)


def test_a_lumen_is_trained_with_a_score_head_that_is_dropped(train, tmp_path):
    train(tmp_path / "lumen", architecture="lumen")
    train(tmp_path / "plain", architecture="lumen", score_head=None)
    lumen, plain = (read_checkpoint(tmp_path / name) for name in ("lumen", "plain"))
    assert (lumen.config.architecture, lumen.config.num_selected) == ("lumen", None)
    assert lumen.config == plain.config
    assert set(lumen.tensors) == set(plain.tensors)


@pytest.mark.parametrize(
    ("changes", "expected", "found"),
    [
        ({"seed": 1}, "seed 1, as asked for", "0"),
        ({"learning_rate": 2e-3}, "the recipe of this one", "learning_rate 0.0001"),
        ({"architecture": "lumen"}, "the config of this one", "architecture glimmer"),
    ],
)
def test_another_training_is_refused(train, unfinished, tmp_path, changes, expected, found):
    before = (unfinished / "state.pt").read_bytes()
    with pytest.raises(OutputError) as caught:
        train(tmp_path / "out", **changes)
    assert (caught.value.expected, caught.value.found) == (expected, found)
    assert f"remove {unfinished}" in caught.value.fix
    assert (unfinished / "state.pt").read_bytes() == before
    assert not (tmp_path / "out").exists()


def damaged(content: bytes, damage: str) -> bytes:
    middle = len(content) // 2
    return {
        "empty": b"",
        "truncated": content[:-100],
        "half": content[:middle],
        "flipped": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "text": b"not a state",
    }[damage]


@pytest.mark.parametrize("damage", ["empty", "truncated", "half", "flipped", "text"])
def test_a_damaged_state_is_named(train, unfinished, tmp_path, damage):
    path = unfinished / "state.pt"
    path.write_bytes(content := damaged(path.read_bytes(), damage))
    with pytest.raises(OutputError, match=f"{path}: .* remove {unfinished}"):
        train(tmp_path / "out")
    assert path.read_bytes() == content
    assert not (tmp_path / "out").exists()


def without(*keys: str):
    def change(state):
        for key in keys[:-1]:
            state = state[key]
        del state[keys[-1]]

    return change


def assign(value: object, *keys: object):
    def change(state):
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        without("settings"),
        without("model"),
        without("optimizer"),
        without("progress"),
        without("model", "shared.weight"),
        without("progress", "steps"),
        without("source"),
        without("source", "worlds"),
        without("optimizer", "param_groups"),
        without("optimizer", "state", 0, "exp_avg"),
        assign("glimmer", "settings"),
        assign(torch.zeros(3), "model", "shared.weight"),
        assign("far", "progress", "step"),
        assign(10_000, "progress", "phase"),
        assign(-1, "source", "worlds", "taken"),
        assign({"nq": 1}, "source", "files"),
        assign([], "optimizer", "param_groups"),
        assign(torch.zeros(3), "optimizer", "state", 0, "exp_avg_sq"),
        assign({}, "optimizer", "state", 10_000),
        assign(3, "optimizer"),
    ],
)
def test_a_state_of_another_form_is_named(train, unfinished, tmp_path, change):
    path = unfinished / "state.pt"
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    with pytest.raises(OutputError, match=str(path)):
        train(tmp_path / "out")


def test_foreign_content_is_named_and_not_executed(train, unfinished, tmp_path):
    torch.save({"settings": Path("of a class")}, unfinished / "state.pt")
    with pytest.raises(OutputError, match="found a pickle that calls pathlib"):
        train(tmp_path / "out")
    torch.save([1], unfinished / "state.pt")
    with pytest.raises(OutputError, match="found a list without them"):
        train(tmp_path / "out")


def test_a_state_without_its_best_checkpoint_is_named(train, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(train_module, "save_state", save_and_stop)
        with pytest.raises(StopError):
            train(tmp_path / "out", keep="best", evaluate_every=2)
    kept = tmp_path / "out.training" / "best-2"
    assert read_checkpoint(kept).config.architecture == "glimmer"
    shutil.rmtree(kept)
    with pytest.raises(OutputError, match="best-2, the checkpoint that is its best so far"):
        train(tmp_path / "out", keep="best", evaluate_every=2)


def test_what_killed_writes_have_left_goes(train, unfinished, tmp_path):
    for name in ("best-1", ".best-2.glimmer-new.0123456789abcdef", ".last.glimmer-new.0123456789abcdef"):
        (unfinished / name).mkdir()
    (unfinished / ".log.jsonl.0123456789abcdef.tmp").touch()
    train(tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_files_of_others_in_the_folder_stay(train, unfinished, tmp_path):
    (unfinished / "diary.txt").write_text("mine", encoding="utf-8")
    (unfinished / ".state.pt.0123456789abcdef.tmp").write_bytes(b"of a write that was killed")
    train(tmp_path / "out")
    assert [path.name for path in unfinished.iterdir()] == ["diary.txt"]


def test_an_unfinished_store_of_the_same_name_is_no_state(train, tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "plan.json").write_text("{}", encoding="utf-8")
    train(tmp_path / "out")
    assert (tmp_path / "out.partial" / "plan.json").exists()


def test_a_full_disk_is_named_and_the_last_state_stays(train, unfinished, tmp_path):
    before = (unfinished / "state.pt").read_bytes()
    with small_files(100_000), pytest.raises(OutputError, match="a full disk"):
        train(tmp_path / "out")
    assert (unfinished / "state.pt").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"out.training"}
    assert {path.name for path in unfinished.iterdir()} == {"state.pt", "log.jsonl", "tensorboard"}
