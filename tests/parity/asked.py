"""Questions for gates, and a gate that asks for no more of them than there are."""

from __future__ import annotations

from pathlib import Path

from glimmer_export.calibration.questions import Question
from tests.exported import QUESTIONS, Exported

__all__ = ["FEW", "GATE", "answered_rows", "write_gate"]

LIMITS = """
max_em_loss_points: 0.5
min_answers_equal_of_correct: 0.985
min_top_m_overlap: 0.98
max_gold_in_top_m_loss_points: 0.3
"""
FEW = 5
GATE = f"description: for a few questions\nmin_answered: {FEW}\n{LIMITS}"


def answered_rows(source: Exported) -> list[Question]:
    """Questions that the good bundle answers, with what it says, and the best passage that it reads as gold."""
    answers = source.session.answer_many(QUESTIONS)
    return [
        Question(
            f"q{place}", answer.question, (answer.answer,), None, (answer.passages[answer.selected[0]].passage.id,)
        )
        for place, answer in enumerate(answers)
        if answer.answer
    ]


def write_gate(directory: Path, content: str = GATE) -> str:
    """A gate's file, as `--gate` takes it."""
    path = directory / "few.yaml"
    path.write_text(content, encoding="utf-8")
    return str(path)
