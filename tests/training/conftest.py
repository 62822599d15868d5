"""A tiny checkpoint's texts, a corpus, and files of rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glimmer_export.exporter.checkpoint import Checkpoint, read_checkpoint
from glimmer_export.exporter.training.texts import RowText
from tests.bundle_factory import write_rows
from tests.exported import CORPUS, make_checkpoint

JOINED = {
    "question_layout": "joined", "input_template": "{question} {title} {text}", "question_length": 24,
    "num_memory_layers": 0, "num_stage_b_layers": 2,
}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Checkpoint:
    """That of the variant `glimmer`, whose store fits it."""
    return read_checkpoint(make_checkpoint(tmp_path_factory.mktemp("training") / "checkpoint", "glimmer"))


@pytest.fixture(scope="session")
def joined_checkpoint(tmp_path_factory) -> Checkpoint:
    return read_checkpoint(make_checkpoint(tmp_path_factory.mktemp("training") / "checkpoint", "fid", **JOINED))


@pytest.fixture(scope="session")
def text(checkpoint) -> RowText:
    return RowText.of(checkpoint)


@pytest.fixture(scope="session")
def joined_text(joined_checkpoint) -> RowText:
    return RowText.of(joined_checkpoint)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("training") / "corpus.jsonl", CORPUS)


@pytest.fixture(scope="session")
def given_rows(tmp_path_factory) -> Path:
    """A file whose rows give their passages as texts."""
    rows = [
        {"question": f"w{place} w3", "answers": [f"w{place}", "w1 w2"], "ctxs": CORPUS[place : place + 3]}
        for place in range(6)
    ]
    return write_rows(tmp_path_factory.mktemp("training") / "given.jsonl", rows)


@pytest.fixture
def write(tmp_path):
    """Writes rows to a file of this name."""

    def written(name: str, *rows: dict[str, object]) -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return written
