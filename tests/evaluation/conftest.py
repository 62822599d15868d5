"""Questions on the corpus of the exported models, and what is found for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from glimmer_export.calibration.questions import read_questions
from glimmer_export.exporter.evaluation.questions import TaskQuestion
from tests.bundle_factory import write_rows
from tests.exported import CORPUS, QUESTIONS

__all__ = ["question_rows"]


def question_rows() -> list[dict[str, Any]]:
    """Each with an answer that is seldom right, and a passage as its gold."""
    return [
        {
            "question": text, "answers": ["w1"], "gold_ids": [CORPUS[3 * place]["id"]],
            "ctxs": [CORPUS[4 * place], {**CORPUS[4 * place + 1], "id": None}, CORPUS[4 * place + 2]],
            "task": "short" if place % 2 else "long",
        }
        for place, text in enumerate(QUESTIONS)
    ]


@pytest.fixture
def questions_file(tmp_path: Path) -> Path:
    """The rows in a file."""
    return write_rows(tmp_path / "asked.jsonl", question_rows())


@pytest.fixture
def asked(questions_file: Path) -> list[TaskQuestion]:
    """The rows, read."""
    return [TaskQuestion(item, item.task or "") for item in read_questions(questions_file)]
