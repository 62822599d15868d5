"""A training that is killed at any moment, however often, ends as one that is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from glimmer_export.exporter.checkpoint import read_checkpoint
from tests.bundle_factory import write_rows
from tests.exported import CORPUS
from tests.training.forks import run_forks

RECIPE = """
batch_size: 4
micro_batch_size: 3
num_retrieved: 4
num_selected: 2
learning_rate: 5e-3
optimizer: {name: adamw, weight_decay: 0.01}
dropout: 0.1
precision: float32
evaluate_every: 3
save_every: 2
phases:
  - {steps: 90, tasks: [short], promote_at: 0.25}
  - {steps: 3, num_retrieved: 3}
"""
"""The first phase ends early, at a step that depends on what was learned; evaluations and states come apart."""


@pytest.fixture(scope="module")
def command(checkpoint, tmp_path_factory) -> list[str]:
    """Two tasks, of which one has several answers, with passages retrieved."""
    folder = tmp_path_factory.mktemp("kills")
    corpus = write_rows(folder / "corpus.jsonl", CORPUS)
    asked = [f"{passage['title']} {' '.join(passage['text'].split()[:2])}" for passage in CORPUS]
    short = [{"question": question, "answers": ["w1"]} for question in asked[:14]]
    long = [{"question": question, "answers": ["w1", "w2 w3"]} for question in asked[14:30]]
    dev = [{"question": asked[place], "answers": ["w1"] if place % 3 else ["w2 w3"]} for place in range(12)]
    files = [write_rows(folder / f"{name}.jsonl", rows) for name, rows in (("a", short), ("b", long), ("dev", dev))]
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return [
        "train", str(checkpoint.directory), "--train", f"{files[0]}=short", "--train", f"{files[1]}=long",
        "--dev", str(files[2]), "--corpus", str(corpus), "--recipe", str(folder / "recipe.yaml"), "--device", "cpu",
    ]


def runs(command: list[str], output: Path, moments: Sequence[str] = ()) -> list[dict[str, object]]:
    """The command, killed at these moments, and then to its end."""
    return [{"command": [*command, "-o", output], "moment": moment} for moment in (*moments, "")]


@pytest.fixture(scope="module")
def trained(command, tmp_path_factory) -> dict[str, Path]:
    """A training that nobody disturbs, and one that is killed.

    Once when the best checkpoint is there and no state knows of it, and once in the middle of saving a state.
    """
    outputs = {name: tmp_path_factory.mktemp(name) / "out" for name in ("unbroken", "killed")}
    killed = runs(command, outputs["killed"], ["log.jsonl:16", "state.pt:9"])
    assert run_forks(*runs(command, outputs["unbroken"]), *killed) == [[0], [-9], [-9], [0]]
    return outputs


@pytest.fixture(scope="module")
def unbroken(trained) -> Path:
    return trained["unbroken"]


def told(checkpoint: Path) -> list[dict[str, float]]:
    """The lines of a log, without their times."""
    lines = map(json.loads, (checkpoint / "training" / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def shown(checkpoint: Path) -> list[tuple[int, float]]:
    """The losses that TensorBoard shows."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(checkpoint / "training" / "tensorboard"))
    return [(event.step, event.value) for event in events.Reload().Scalars("loss")]


def check_same(broken: Path, unbroken: Path) -> None:
    """Weights, log, TensorBoard, and what the record says but for when; and nothing else is left."""
    tensors, wanted = (read_checkpoint(path).tensors for path in (broken, unbroken))
    assert {name for name in wanted if not torch.equal(tensors[name], wanted[name])} == set()
    assert told(broken) == told(unbroken)
    assert shown(broken) == shown(unbroken)
    one, other = (json.loads((path / "training" / "record.json").read_text()) for path in (broken, unbroken))
    assert {name for name in other if one[name] != other[name]} <= {"date", "seconds"}
    assert [path.name for path in broken.parent.iterdir()] == ["out"]


def test_the_training_has_what_could_be_lost(unbroken):
    steps = [line for line in told(unbroken) if "loss" in line]
    ends = max(line["step"] for line in steps if line["phase"] == 0)
    assert 5 < ends < 90
    assert [line["step"] for line in steps] == list(range(1, ends + 4))
    dev = [line["dev_em"] for line in told(unbroken) if "dev_em" in line]
    record = json.loads((unbroken / "training" / "record.json").read_text(encoding="utf-8"))
    assert record["dev"]["em"] == max(dev) > dev[0]
    assert record["kept_step"] < record["steps"]
    assert [step for step, _ in shown(unbroken)] == [line["step"] for line in steps]


def test_a_training_that_was_killed_ends_as_one_that_was_not(trained, unbroken):
    check_same(trained["killed"], unbroken)


@pytest.mark.slow
def test_a_training_that_was_killed_ten_times_ends_as_one_that_was_not(command, unbroken, tmp_path):
    random = np.random.default_rng(7)
    words = random.choice(["/out", "log.jsonl", "best-", "state.pt"], 10, p=[0.4, 0.4, 0.1, 0.1])
    most = {"/out": 90, "log.jsonl": 8, "best-": 12, "state.pt": 12}
    moments = [f"{word}:{random.integers(1, most[word])}" for word in words]
    assert run_forks(*runs(command, tmp_path / "out", moments)) == [*[[-9]] * 10, [0]]
    check_same(tmp_path / "out", unbroken)
