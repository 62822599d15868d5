"""Questions in two: those that the search sees, and those that are held out to judge what it chose.

Which a question belongs to is decided by its own words and the seed, not by its place: a file in another order, or with
more questions, is cut alike, and a question that stands twice is on one side.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.answering.metrics import gold_answers
from glimmer_export.runtime.contract import OptionError, QuestionFileError

__all__ = ["HELD_OUT", "Split", "rows_of", "split_questions"]

HELD_OUT = 0.5
"""Of the questions: what is chosen by 1,500 has to be shown by as many."""
LEAST = 2


@dataclass(frozen=True)
class Split:
    """Both parts, in the file's order; `ungraded` had no answers to be graded by, and are in neither."""

    search: tuple[Question, ...]
    held_out: tuple[Question, ...]
    ungraded: int = 0


def split_questions(questions: Sequence[Question], held_out: float, seed: int) -> Split:
    """Hold out this share of the questions.

    Raises QuestionFileError if too few have answers, OptionError for a share that leaves one part empty.
    """
    graded = [question for question in questions if gold_answers(question.answers) and question.question.strip()]
    if len(graded) < 2 * LEAST:
        raise QuestionFileError(
            f"{len(questions)} questions", expected=f"at least {2 * LEAST} with answers, to search and to judge by",
            found=str(len(graded)), fix="give more, with their answers",
        )
    words = {" ".join(question.question.split()).lower() for question in graded}
    ranked = sorted(words, key=lambda text: hashlib.sha256(f"{seed} {text}".encode()).digest())
    kept_apart = set(ranked[: round(held_out * len(ranked))])
    apart = [" ".join(question.question.split()).lower() in kept_apart for question in graded]
    held = tuple(question for question, is_held in zip(graded, apart, strict=True) if is_held)
    search = tuple(question for question, is_held in zip(graded, apart, strict=True) if not is_held)
    if min(len(held), len(search)) < LEAST:
        raise OptionError(
            "option --held-out", expected=f"a share that leaves {LEAST} questions on either side",
            found=f"{held_out:g} of {len(graded)}", fix="give more questions, or another share",
        )
    return Split(search, held, len(questions) - len(graded))


def rows_of(questions: Sequence[Question], found: Sequence[Sequence[int | str]] | None = None) -> str:
    """Questions as a JSONL file of ours has them; `found` are the ids of each one's passages, best first."""
    lines = []
    for place, question in enumerate(questions):
        row = {
            "qid": question.qid, "question": question.question, "answers": list(question.answers),
            "gold_ids": list(question.gold_ids),
        }
        if question.task is not None:
            row["task"] = question.task
        if found is not None:
            row["ctx_ids"] = list(found[place])
        lines.append(json.dumps(row) + "\n")
    return "".join(lines)
