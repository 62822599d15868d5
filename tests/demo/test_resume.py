"""A training goes on from its own state alone; any other, and a damaged one, is an error with a name."""

from __future__ import annotations

import io
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from rich.console import Console

from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.demo import demo_config, train_demo
from glimmer_export.exporter.demo.recipe import Phase
from glimmer_export.exporter.demo.resume import restore_state, save_state
from glimmer_export.exporter.demo.training import Training
from glimmer_export.runtime.contract import OutputError

SHORT = (Phase(2, 1, 1, facts_per_passage=1, batch_size=2, learning_rate=1e-3),) * 2


def trainer(seed=0) -> Training:
    return Training(demo_config("glimmer"), SHORT, seed=seed, device=torch.device("cpu"))


class StopError(Exception):
    """Where a training is interrupted."""


def stop(*_: object) -> None:
    raise StopError


def train(output: Path, **changes: object) -> str:
    text = io.StringIO()
    train_demo(output, **{"curriculum": SHORT, "num_test_questions": 5, "console": Console(file=text), **changes})
    return text.getvalue()


@pytest.fixture(scope="module")
def begun() -> Training:
    """A training that stopped after its first world."""
    training = trainer()
    with pytest.raises(StopError):
        training.run(lambda report: None, world_done=stop)
    return training


@pytest.fixture
def unfinished(begun, tmp_path) -> Path:
    """The folder that it left."""
    save_state(begun, tmp_path / "out.training")
    return tmp_path / "out.training"


def test_train_demo_goes_on_and_ends_with_the_same_weights(unfinished, tmp_path):
    assert "phase 1/2" not in train(tmp_path / "out")
    train(tmp_path / "whole")
    resumed, whole = (read_checkpoint(tmp_path / name).tensors for name in ("out", "whole"))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "whole"}


def test_a_lumen_is_the_same_training_without_the_score_head(unfinished, tmp_path):
    train(tmp_path / "glimmer")
    assert "phase 1/2" not in train(tmp_path / "out", architecture="lumen")
    lumen, glimmer = (read_checkpoint(tmp_path / name) for name in ("out", "glimmer"))
    assert (lumen.config.architecture, lumen.config.num_selected) == ("lumen", None)
    assert set(glimmer.tensors) - set(lumen.tensors) == {"score.weight", "score.bias"}
    assert all(torch.equal(weight, glimmer.tensors[name]) for name, weight in lumen.tensors.items())


BEGINNING = (
    "[{'steps': 2, 'num_passages': 1, 'num_selected': 1, 'facts_per_passage': 1, 'batch_size': 2, "
    "'learning_rate': 0.001, 'pr"
)
"""As much of the other training's curriculum as an error says."""


@pytest.mark.parametrize(
    ("changes", "expected", "found"),
    [
        ({"seed": 1}, "seed 1, as asked for", "0"),
        ({"curriculum": (*SHORT, SHORT[0])}, "the curriculum of this version", BEGINNING),
    ],
)
def test_another_training_is_refused(unfinished, tmp_path, changes, expected, found):
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
def test_a_damaged_state_is_named(unfinished, tmp_path, damage):
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
        without("progress", "world"),
        without("optimizer", "param_groups"),
        without("optimizer", "state", 0, "exp_avg"),
        assign("glimmer", "settings"),
        assign(torch.zeros(3), "model", "shared.weight"),
        assign("far", "progress", "step"),
        assign([], "optimizer", "param_groups"),
        assign(torch.zeros(3), "optimizer", "state", 0, "exp_avg_sq"),
        assign({}, "optimizer", "state", 10_000),
        assign(3, "optimizer"),
    ],
)
def test_a_state_of_another_form_is_named(begun, unfinished, change):
    path = unfinished / "state.pt"
    state = torch.load(path, weights_only=True)
    change(state)
    torch.save(state, path)
    with pytest.raises(OutputError, match=str(path)):
        restore_state(trainer(), unfinished)


def test_foreign_content_is_named_and_not_executed(unfinished):
    torch.save({"settings": Path("of a class")}, unfinished / "state.pt")
    with pytest.raises(OutputError, match="found a pickle that calls pathlib"):
        restore_state(trainer(), unfinished)
    torch.save([1], unfinished / "state.pt")
    with pytest.raises(OutputError, match="found a list without them"):
        restore_state(trainer(), unfinished)


def test_files_of_others_in_the_folder_stay(unfinished, tmp_path):
    (unfinished / "diary.txt").write_text("mine", encoding="utf-8")
    (unfinished / ".state.pt.tmp").write_bytes(b"of a write that was killed")
    train(tmp_path / "out")
    assert [path.name for path in unfinished.iterdir()] == ["diary.txt"]


def test_an_unfinished_store_of_the_same_name_is_no_state(tmp_path):
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "plan.json").write_text("{}", encoding="utf-8")
    train(tmp_path / "out")
    assert (tmp_path / "out.partial" / "plan.json").exists()


@contextmanager
def files_of_at_most(num_bytes: int):
    """The system refuses to write more into a file, as it does where a disk or a quota is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_named_and_the_last_state_stays(begun, unfinished, tmp_path):
    before = (unfinished / "state.pt").read_bytes()
    with files_of_at_most(100_000), pytest.raises(OutputError, match="a full disk"):
        train(tmp_path / "out")
    assert (unfinished / "state.pt").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"out.training"}
    assert [path.name for path in unfinished.iterdir()] == ["state.pt"]
