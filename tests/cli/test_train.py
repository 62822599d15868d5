"""`glimmer-export train`: every architecture by the command line, and input that it refuses without a trace."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.runtime.contract import (
    CheckpointError,
    GlimmerError,
    OptionError,
    QuestionFileError,
    TokenizerError,
    TrainingError,
)
from tests.bundle_factory import write_rows
from tests.cli.conftest import snapshot
from tests.docs.pages import DOCS
from tests.exported import CORPUS, make_checkpoint

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
