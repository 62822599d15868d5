"""Two processes that train one model, beside one that accumulates the same parts of each batch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.tolerances import TOLERANCES
from tests.bundle_factory import write_rows
from tests.exported import CORPUS, Exported
from tests.training.forks import run_forks

CLOSE = TOLERANCES["training_processes"]
TOGETHER = (
    "batch_size=5", "micro_batch_size=2", "num_selected=1", "dropout=0.1", "optimizer.name=sgd", "learning_rate=0.05",
    "precision=float32", "phases=[{steps: 17, num_retrieved: 3}, {steps: 3, num_retrieved: 1}]",
)  # fmt: skip
"""Parts of 2, 2 and 1 rows, of which one process has two and the other one; at k = 1 nothing is ranked."""
FROZEN = (*TOGETHER[:-1], "steps=3", "num_retrieved=3", "memory=frozen", "phases=[]")


@pytest.fixture(scope="module")
def trained(glimmer: Exported, exported, tmp_path_factory) -> Path:
    """A folder with the outputs of one process and of two, and what those printed that were refused."""
    folder = tmp_path_factory.mktemp("processes")
    rows = write_rows(
        folder / "rows.jsonl",
        [{"question": f"{passage['title']} w{place}", "answers": [f"w{place} w1", f"w{place % 7}"]}
         for place, passage in enumerate(CORPUS[:17])],
    )  # fmt: skip
    lumen = exported("lumen")

    def run(
        name: str, source: Exported, changes: tuple[str, ...], processes: int, *more: object, moment: str = ""
    ) -> dict[str, object]:
        settings = [word for change in changes for word in ("--set", change)]
        passages = ("--store", source.store) if "memory=frozen" in changes else ("--corpus", source.corpus)
        command = ["train", source.checkpoint, "--train", rows, *passages, "--recipe", "glimmer-paper", *settings]
        return {
            "command": [*command, "--device", "cpu", *more, "-o", folder / name], "processes": processes,
            "stderr": folder / f"{name}.txt", "moment": moment,
        }

    small = ("steps=2", "batch_size=1")
    codes = run_forks(
        run("one", glimmer, TOGETHER, 1), run("two", glimmer, TOGETHER, 2),
        run("frozen-one", lumen, FROZEN, 1), run("frozen-two", lumen, FROZEN, 2),
        run("small", glimmer, small, 2), run("device", glimmer, TOGETHER, 2, "--device", "cuda:1"),
        run("lost", glimmer, (*TOGETHER, "save_every=1"), 2, moment="state.pt:1"),
    )
    assert codes == [[0], [0, 0], [0], [0, 0], [2, 2], [2, 2], [-9, 2]], (folder / "two.txt").read_text()
    return folder


def losses(output: Path) -> list[float]:
    lines = map(json.loads, (output / "training" / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [line["loss"] for line in lines]


@pytest.mark.parametrize(("name", "steps"), [("", 20), ("frozen-", 3)])
def test_two_processes_train_as_one_does(trained, name, steps):
    one, two = (trained / f"{name}{processes}" for processes in ("one", "two"))
    assert json.loads((two / "training" / "record.json").read_text())["processes"] == 2
    assert len(losses(one)) == steps
    assert losses(two) == pytest.approx(losses(one), rel=1e-4, abs=0)
    weights, wanted = (read_checkpoint(output).tensors for output in (two, one))
    for tensor in wanted:
        torch.testing.assert_close(weights[tensor], wanted[tensor], rtol=CLOSE.rtol, atol=CLOSE.atol)


def test_the_weights_moved_by_more_than_the_tolerance(trained, glimmer):
    before, after = (read_checkpoint(path).tensors for path in (glimmer.checkpoint, trained / "two"))
    same = {name for name in before if torch.allclose(after[name], before[name], CLOSE.rtol, CLOSE.atol)}
    assert same == {"score.bias"}  # all scores move with it, and none beside another


def test_fewer_rows_than_processes_are_named_before_anything_begins(trained):
    printed = (trained / "small.txt").read_text(encoding="utf-8")
    assert "a row at least of each batch for each of 2 processes, found a batch_size of 1" in printed
    assert "Traceback" not in printed
    assert not (trained / "small.training").exists()


def test_several_processes_have_a_device_each(trained):
    printed = (trained / "device.txt").read_text(encoding="utf-8")
    assert "OptionError: option --device: expected cpu or cuda" in printed
    assert not (trained / "device.training").exists()


def test_a_process_without_the_other_ends_at_once_and_says_why(trained):
    """Only the first one writes, and is killed as it saves the state."""
    printed = (trained / "lost.txt").read_text(encoding="utf-8")
    assert "TrainingError: process 1 of 2: expected the others to go on, found one that has ended" in printed
    assert "Traceback" not in printed
