"""`glimmer-export train`: every architecture by the command line, and input that it refuses without a trace."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.training.state import save_state
from glimmer_export.runtime.contract import (
    CheckpointError,
    GlimmerError,
    OptionError,
    QuestionFileError,
    TokenizerError,
    TrainingError,
)
from tests.bundle_factory import write_rows
from tests.cli.conftest import Done, snapshot
from tests.docs.pages import DOCS
from tests.exported import CORPUS, make_checkpoint
from tests.small_files import small_files

CHANGES = (
    "steps=2", "batch_size=2", "num_retrieved=3", "num_selected=1", "evaluate_every=1", "save_every=1",
    "question_length=null", "passage_length=null",
)  # fmt: skip
SHORT = [word for change in CHANGES for word in ("--set", change)]
JOINED = {"question_layout": "joined", "input_template": "{question} {title} {text}", "question_length": 24}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A corpus, rows that give passages or none, and a checkpoint."""
    folder = tmp_path_factory.mktemp("train")
    write_rows(folder / "corpus.jsonl", CORPUS)
    asked = [{"question": f"w{place} w3", "answers": [f"w{place}", "w1"]} for place in range(6)]
    write_rows(folder / "rows.jsonl", asked)
    write_rows(folder / "given.jsonl", [row | {"ctxs": CORPUS[:4]} for row in asked])
    write_rows(folder / "empty.jsonl", [])
    write_rows(folder / "answerless.jsonl", [{"question": "w1"}])
    make_checkpoint(folder / "glimmer", "glimmer")
    make_checkpoint(folder / "without", "glimmer", tokenizer=False)
    return folder


def check_documented(*records: dict[str, object]) -> None:
    """The page of formats names every field of the record and of the log."""
    page = (DOCS / "format.md").read_text(encoding="utf-8")
    section = page.partition("### Training\n")[2].partition("\n## ")[0]
    assert {field for record in records for field in record if f"`{field}`" not in section} == set()


@pytest.mark.parametrize(
    ("variant", "changes"),
    [("glimmer", {}), ("lumen", {}), ("memory_fid", {}), ("fid", {}), ("fid", JOINED)],
    ids=["glimmer", "lumen", "memory_fid", "fid, block", "fid, joined"],
)
def test_each_architecture(cli, folder, tmp_path, variant, changes):
    """With passages given and with passages retrieved; what is written is of the same shape, and says what it is."""
    start = read_checkpoint(make_checkpoint(tmp_path / "start", variant, **changes))
    found = ("rows.jsonl", "--corpus", folder / "corpus.jsonl"), ("given.jsonl", "--passages", "given")
    for name, (rows, *passages) in zip(("found", "given"), found, strict=True):
        files = ("--train", f"{folder / rows}=task", "--dev", folder / rows, *passages)
        done = cli("train", start.directory, *files, *SHORT, "-o", tmp_path / name, "--device", "cpu", "--json")
        trained = read_checkpoint(tmp_path / name)
        assert trained.config == start.config
        assert set(trained.tensors) == set(start.tensors)
        record = json.loads((tmp_path / name / "training" / "record.json").read_text(encoding="utf-8"))
        assert done.json == {"checkpoint": str(tmp_path / name), **record}
        assert (record["steps"], record["rows"]["kept"], record["dev"]["rows"]) == (2, 6, 6)
        log = (tmp_path / name / "training" / "log.jsonl").read_text(encoding="utf-8").splitlines()
        assert [json.loads(line)["step"] for line in log] == [1, 1, 2, 2]
        assert not (tmp_path / f"{name}.training").exists()
        check_documented(record, *map(json.loads, log))


@pytest.fixture
def training(folder, tmp_path) -> list[object]:
    """Two steps of a command whose state is kept after each; options may follow."""
    rows = ("--train", folder / "given.jsonl", "--passages", "given")
    return ["train", folder / "glimmer", *rows, *SHORT, "--device", "cpu", "-o", tmp_path / "out"]


def check_named(done: Done, error: str) -> None:
    assert done.code == 2, done.err
    assert f"\n{error}: " in f"\n{done.err}"
    assert "Traceback" not in done.err
    assert done.out == ""


def test_a_full_disk(cli, training, tmp_path, monkeypatch):
    """After the first step's state was saved: with room again, the same command goes on behind it."""
    with ExitStack() as disk, monkeypatch.context() as patch:

        def save_and_fill(*arguments):
            save_state(*arguments)
            disk.enter_context(small_files(100))

        patch.setattr("glimmer_export.exporter.training.train.save_state", save_and_fill)
        done = cli(*training)
    check_named(done, "OutputError")
    assert "full disk" in done.err
    assert not (tmp_path / "out").exists()
    (first,) = [line for line in (tmp_path / "out.training" / "log.jsonl").open() if line.endswith("}\n")]
    assert cli(*training).code == 0
    lines = (tmp_path / "out" / "training" / "log.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    assert lines[0] == first  # with its seconds: the step was not done again
    assert [json.loads(line)["step"] for line in lines] == [1, 2]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_loss_that_is_not_finite(cli, training, tmp_path):
    """The weights of before are a checkpoint to begin with."""
    spoilt = ("learning_rate=1e30", "optimizer={name: sgd}", "steps=10")
    done = cli(*training, *(word for change in spoilt for word in ("--set", change)))
    check_named(done, "TrainingError")
    assert "lower learning_rate" in done.err
    assert not (tmp_path / "out").exists()
    last = read_checkpoint(tmp_path / "out.training" / "last")
    assert all(bool(tensor.isfinite().all()) for tensor in last.tensors.values())
    assert cli(training[0], last.directory, *training[2:-1], tmp_path / "next").code == 0
    assert read_checkpoint(tmp_path / "next").config == last.config


GIVEN = ("--train", "given.jsonl", "--passages", "given")


@pytest.mark.parametrize(
    ("error", "words", "arguments"),
    [
        (QuestionFileError, "empty.jsonl", ("glimmer", "--train", "empty.jsonl", "--passages", "given")),
        (TrainingError, "0 of 1 questions", ("glimmer", "--train", "answerless.jsonl", "--corpus", "corpus.jsonl")),
        (TrainingError, "name files: --train", ("glimmer", "--corpus", "corpus.jsonl")),
        (TrainingError, "task far", ("glimmer", *GIVEN, "--set", "phases=[{steps: 1}, {steps: 1, tasks: [far]}]")),
        (OptionError, "generator 'far'", (
            "glimmer", *GIVEN, "--set", "phases=[{steps: 1}, {steps: 1, world: {generator: far}}]",
        )),
        (OptionError, "options that it has", (
            "glimmer", *GIVEN, "--set", "phases=[{steps: 1}, {steps: 1, world: {generator: demo, options: {far: 1}}}]",
        )),
        (TokenizerError, "a tokenizer.json", ("without", *GIVEN)),
        (CheckpointError, "", ("absent", *GIVEN)),
        (QuestionFileError, "absent.jsonl", ("glimmer", *GIVEN, "--dev", "absent.jsonl")),
        (QuestionFileError, "absent.jsonl", ("glimmer", "--train", "absent.jsonl", "--passages", "given")),
        (OptionError, "neither --corpus nor --store", ("glimmer", "--train", "rows.jsonl")),
        (OptionError, "option --set", ("glimmer", *GIVEN, "--set", "steps")),
        (OptionError, "speed", ("glimmer", *GIVEN, "--set", "speed=1")),
        (OptionError, "greater than or equal to 1", ("glimmer", *GIVEN, "--set", "steps=0")),
        (OptionError, "recipe", ("glimmer", *GIVEN, "--recipe", "far")),
        (OptionError, "a device that torch has here", ("glimmer", *GIVEN, "--device", "cuda:9")),
        (OptionError, "a device that torch has here", ("glimmer", *GIVEN, "--device", "nonsense")),
        (OptionError, "a checkpoint to begin with", GIVEN),
    ],
)  # fmt: skip
def test_input_that_is_refused_leaves_nothing(
    refused, folder, tmp_path, monkeypatch, error: type[GlimmerError], words, arguments
):
    monkeypatch.chdir(folder)
    before = snapshot(folder)
    assert words in refused(error, "train", *arguments, "-o", tmp_path / "out")
    assert snapshot(folder) == before
    assert list(tmp_path.iterdir()) == []
