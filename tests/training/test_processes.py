"""Two processes that train one model, beside one that accumulates the same parts of each batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.tolerances import TOLERANCES
from glimmer_export.exporter.training import train as train_module
from glimmer_export.exporter.training.processes import Processes, started_processes
from glimmer_export.runtime.contract import OptionError, OutputError, TrainingError
from tests.bundle_factory import write_rows
from tests.exported import CORPUS, Exported
from tests.training.forks import run_forks
from tests.training.short import PHASE, short_recipe, short_trainer, train_tiny

CLOSE = TOLERANCES["training_processes"]
COMMON = (
    "batch_size=5", "micro_batch_size=2", "num_retrieved=3", "num_selected=1", "dropout=0.1", "optimizer.name=sgd",
    "learning_rate=0.05", "precision=float32", "question_length=null", "passage_length=null",
)  # fmt: skip
"""Parts of 2, 2 and 1 rows, of which one process has two and the other one."""
TOGETHER = {
    "short": (*COMMON, "phases=[{steps: 2}, {steps: 1, num_retrieved: 1}]"),
    "long": (*COMMON, "phases=[{steps: 17}, {steps: 3, num_retrieved: 1}]"),
    "frozen": (*COMMON, "steps=20", "memory=frozen"),
}
"""At k = 1 nothing is ranked."""


class Trained:
    """The outputs of trainings in a folder, each by one process and by two, and what two printed of which one ended."""

    def __init__(self, folder: Path, source: Exported, names: tuple[str, ...]) -> None:
        self.folder = folder
        self.rows = write_rows(
            folder / "rows.jsonl",
            [{"question": f"{passage['title']} w{place}", "answers": [f"w{place} w1", f"w{place % 7}"]}
             for place, passage in enumerate(CORPUS[:17])],
        )  # fmt: skip
        runs = [self.run(name, source, processes) for name in names for processes in (1, 2)]
        codes = run_forks(*runs, self.run("short", source, 2, "lost", "state.pt:1"))
        assert codes == [*[[0], [0, 0]] * len(names), [-9, 2]], self.printed(f"{names[0]}-2")

    def run(
        self, name: str, source: Exported, processes: int, output: str = "", moment: str = ""
    ) -> dict[str, object]:
        settings = [word for change in TOGETHER[name] for word in ("--set", change)]
        passages = ("--store", source.store) if name == "frozen" else ("--corpus", source.corpus)
        output = output or f"{name}-{processes}"
        command = ["train", source.checkpoint, "--train", self.rows, *passages, "--recipe", "glimmer-paper", *settings]
        return {
            "command": [*command, "--device", "cpu", "-o", self.folder / output], "processes": processes,
            "stderr": self.folder / f"{output}.txt", "moment": moment,
        }

    def printed(self, name: str) -> str:
        return (self.folder / f"{name}.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def trained(glimmer: Exported, tmp_path_factory) -> Trained:
    return Trained(tmp_path_factory.mktemp("processes"), glimmer, ("short",))


def losses(output: Path) -> list[float]:
    lines = map(json.loads, (output / "training" / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["loss"] for line in lines]


def check_same(folder: Path, name: str, steps: int) -> None:
    one, two = (folder / f"{name}-{processes}" for processes in (1, 2))
    assert json.loads((two / "training" / "record.json").read_text(encoding="utf-8"))["processes"] == 2
    assert len(losses(one)) == steps
    assert losses(two) == pytest.approx(losses(one), rel=1e-4, abs=0)
    weights, wanted = (read_checkpoint(output).tensors for output in (two, one))
    for tensor in wanted:
        torch.testing.assert_close(weights[tensor], wanted[tensor], rtol=CLOSE.rtol, atol=CLOSE.atol)


def test_two_processes_train_as_one_does(trained):
    check_same(trained.folder, "short", 3)


@pytest.mark.slow
def test_two_processes_train_as_one_does_for_twenty_steps(glimmer, tmp_path):
    Trained(tmp_path, glimmer, ("long", "frozen"))
    check_same(tmp_path, "long", 20)
    check_same(tmp_path, "frozen", 20)


def test_the_weights_moved_by_more_than_the_tolerance(trained, glimmer):
    before, after = (read_checkpoint(path).tensors for path in (glimmer.checkpoint, trained.folder / "short-2"))
    same = {name for name in before if torch.allclose(after[name], before[name], CLOSE.rtol, CLOSE.atol)}
    assert "score.bias" in same  # all scores move with it, and none beside another
    assert len(same) < len(before) / 10


def test_a_process_without_the_other_ends_at_once_and_says_why(trained):
    """Only the first one writes, and is killed as it saves the state."""
    printed = trained.printed("lost")
    assert "TrainingError: process 1 of 2: expected the others to go on, found one that has ended" in printed
    assert "Traceback" not in printed


class Two(Processes):
    """What the second of two would see, alone."""

    rank, size = 1, 2

    def all(self, value: int) -> list[int]:
        return [value, value + 4]


def test_fewer_rows_than_processes_are_named_before_anything_begins():
    recipe = short_recipe(phases=(PHASE, {**PHASE, "batch_size": 1}))
    with pytest.raises(TrainingError, match="for each of 2 processes, found a batch_size of 1"):
        short_trainer(recipe, processes=Two(torch.device("cpu")))


def test_processes_that_do_not_see_the_same_state_are_named(checkpoint, given_rows, tmp_path, monkeypatch):
    monkeypatch.setattr(train_module, "started_processes", lambda _: Two(torch.device("cpu")))
    with pytest.raises(OutputError, match="the same state in every process, found states of the steps 0, 4"):
        train_tiny(checkpoint, given_rows, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_several_processes_have_a_device_each(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(OptionError, match="expected cpu or cuda"):
        started_processes("cuda:1")


@pytest.mark.parametrize("device", ["cuda:9", "nonsense", "meta", "cpu:", "", "xpu", "hpu", "mps:3", "xla"])
def test_a_device_that_is_not_there_is_named(device):
    with pytest.raises(OptionError, match="a device that torch has here"):
        started_processes(device or "cpu:x")
