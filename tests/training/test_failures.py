"""What makes a training end before its end: a loss that is not finite, and a full disk. Both keep what was good."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from glimmer_export.exporter.checkpoint import Checkpoint, read_checkpoint
from glimmer_export.exporter.training import trainer as trainer_module
from glimmer_export.runtime.contract import OutputError, TrainingError
from tests.cli.conftest import snapshot
from tests.small_files import small_files
from tests.training.short import train_tiny


@pytest.fixture
def train(checkpoint, given_rows, tmp_path):
    """Trains a tiny checkpoint, or another, into `out` or another folder here."""

    def trained(name: str = "out", start: Checkpoint = checkpoint, **changes: object) -> Checkpoint:
        train_tiny(start, given_rows, tmp_path / name, **changes)
        return read_checkpoint(tmp_path / name)

    return trained


def same(one: Checkpoint, other: Checkpoint) -> bool:
    return all(torch.equal(one.tensors[name], other.tensors[name]) for name in other.tensors)


@pytest.fixture
def spoil(monkeypatch):
    """Makes the weights not a number in the optimizer's n-th step."""

    def at(step: int) -> None:
        count, plain = 0, torch.optim.SGD.step

        def spoilt(self, *arguments):
            nonlocal count
            plain(self, *arguments)
            count += 1
            if count == step:
                self.param_groups[0]["params"][0].data.fill_(torch.nan)

        monkeypatch.setattr(torch.optim.SGD, "step", spoilt)

    return at


def test_weights_that_a_step_has_spoilt_are_not_kept(train, spoil, tmp_path):
    """The state stays that of the second step, and so does the checkpoint."""
    wanted = train("two", steps=2)
    spoil(3)
    with pytest.raises(TrainingError, match="after step 3: expected a finite loss and gradient, found a loss of nan"):
        train(steps=6, save_every=2)
    assert same(read_checkpoint(tmp_path / "out.training" / "last"), wanted)


@pytest.mark.parametrize("every", [{"save_every": 1}, {"evaluate_every": 1, "keep": "best"}, {}])
def test_spoilt_weights_are_neither_saved_nor_written(train, spoil, checkpoint, tmp_path, every):
    spoil(1)
    with pytest.raises(TrainingError, match=r"after step 1: .* found weights that give none"):
        train(steps=1, **every)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.training" / "state.pt").exists()
    assert same(read_checkpoint(tmp_path / "out.training" / "last"), checkpoint)


def test_a_batch_without_a_finite_loss_costs_no_step(train, monkeypatch, tmp_path):
    """The weights of before it are good: they stay, though no state was saved; the log tells of every step so far."""
    wanted = train("two", steps=2)
    calls, plain = 0, trainer_module.training_loss

    def at_the_third(*arguments):
        nonlocal calls
        calls += 1
        losses = plain(*arguments)
        return losses if calls != 3 else type(losses)(**{**vars(losses), "ranking": losses.ranking * torch.nan})

    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "training_loss", at_the_third)
        with pytest.raises(TrainingError, match="after step 2"):
            train(steps=6)
    assert same(read_checkpoint(tmp_path / "out.training" / "last"), wanted)
    assert len((tmp_path / "out.training" / "log.jsonl").read_text().splitlines()) == 2
    assert same(train(steps=6), train("whole", steps=6))
    assert not (tmp_path / "out.training").exists()


@pytest.mark.parametrize(
    ("num_bytes", "changes", "left"),
    [
        (100, {}, {"log.jsonl", "tensorboard"}),
        (50_000, {"evaluate_every": 1, "keep": "best"}, {"log.jsonl", "tensorboard"}),
    ],
    ids=["log", "best"],
)
def test_a_full_disk(train, tmp_path, num_bytes, changes, left):
    with small_files(num_bytes), pytest.raises(OutputError, match="a full disk"):
        train(**changes)
    assert {path.name for path in tmp_path.iterdir()} == {"out.training"}
    assert {path.name for path in (tmp_path / "out.training").iterdir()} <= left
    assert same(train(**changes), train("whole", **changes))


def test_a_full_disk_at_the_end(train, monkeypatch, tmp_path):
    """The state is that of the last step, so that with room again only the checkpoint is to be written."""
    with monkeypatch.context() as patch:
        patch.setattr("glimmer_export.exporter.training.train.remove_state", lambda _: None)
        train()
    shutil.rmtree(tmp_path / "out")
    with small_files(50_000), pytest.raises(OutputError, match="a full disk"):
        train()
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.training" / "state.pt").exists()
    assert same(train(), train("whole"))
    assert not (tmp_path / "out.training").exists()


@pytest.fixture
def kill(train, monkeypatch):
    """Trains until the checkpoint is written, and the removal of the state comes to a function that is named."""

    def until(name: str, **changes: object) -> None:
        def killed(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(f"glimmer_export.exporter.training.{name}", killed)
            with pytest.raises(KeyboardInterrupt):
                train(**changes)

    return until


@pytest.mark.parametrize("name", ["train.remove_state", "state.remove_unfinished"], ids=["before", "within"])
def test_a_training_that_only_left_its_state_removes_it(train, kill, tmp_path, name):
    changes = {"evaluate_every": 1, "keep": "best"}
    kill(name, **changes)
    assert (tmp_path / "out.training" / "state.pt").exists()
    before = snapshot(tmp_path / "out")
    train(**changes)
    assert snapshot(tmp_path / "out") == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_an_output_that_another_training_wrote_stays(train, kill, spoil, tmp_path):
    """Beside a state of the same training, be it whole or not."""
    train("other", seed=1)
    kill("train.remove_state")
    shutil.rmtree(tmp_path / "out")
    shutil.copytree(tmp_path / "other", tmp_path / "out")
    before = snapshot(tmp_path)
    with pytest.raises(OutputError, match="a path that does not exist yet"):
        train()
    assert snapshot(tmp_path) == before
    shutil.rmtree(tmp_path / "out.training")
    (tmp_path / "out").rename(tmp_path / "aside")
    spoil(2)
    with pytest.raises(TrainingError):
        train(save_every=1)
    (tmp_path / "aside").rename(tmp_path / "out")
    with pytest.raises(OutputError, match="a path that does not exist yet"):
        train(save_every=1)


def test_a_checkpoint_in_the_trainings_own_folder_is_no_input_of_it(train, checkpoint, tmp_path):
    inside = Path(shutil.copytree(checkpoint.directory, tmp_path / "out.training" / "last"))
    with pytest.raises(OutputError, match="apart from what is read"):
        train("out", read_checkpoint(inside))
    assert train("other", read_checkpoint(inside)).config == checkpoint.config
