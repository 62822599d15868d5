"""Files of questions, plain or compressed, one or several; their rows are in any of the layouts of `question_row`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from glimmer_export.calibration.json_rows import json_rows
from glimmer_export.calibration.question_row import LAYOUTS, UNJOINED, Question, Row
from glimmer_export.calibration.spread import spread
from glimmer_export.calibration.text_files import files_of, open_named
from glimmer_export.runtime.candidates import PassageId
from glimmer_export.runtime.contract import QuestionFileError
from glimmer_export.runtime.contract.kinds import refuse_ours
from glimmer_export.runtime.store import Passage

__all__ = ["Question", "given_passages", "question_files", "read_questions"]

ENDINGS = tuple(f".{layout}{packed}" for layout in ("jsonl", "json", "ndjson") for packed in ("", ".gz", ".zst"))
"""Of the files that are taken from a folder."""
STDIN = Path("/dev/stdin")
MAX_BYTES = 4 << 30
"""Of a file: FiD's for a whole training split have more, but all questions are held in memory."""
MAX_UNPACKED_BYTES = 1 << 30
"""Of a compressed file: questions are held in memory, and a few megabytes of gzip can hold gigabytes."""


def read_questions(path: str | Path | Sequence[str | Path], limit: int | None = None) -> list[Question]:
    """At most `limit` questions of a file, of several or of a folder's, in even steps over all of them; None: all.

    Files are plain, in gzip or in zstd. A row without an id gets one that no row has. A passage without text is skipped
    and counted; passages that have scores come by their scores, best first, as in FiD.

    Raises QuestionFileError, with the line or the row counted from 1: not UTF-8, not JSON, in none of the known
    layouts, a field of another type, answers under a name that is not known; or a file without questions, or with
    rows of KILT that have none.
    """
    questions: list[Question] = []
    for file in question_files(path):
        found = [row.question() for row in _questions(file)]
        if not found:
            raise QuestionFileError(f"questions {file}", expected="at least one question", found="none", fix=LAYOUTS)
        blank = not any(question.question.strip() for question in found)
        if blank and any(question.evidence is not None for question in found):
            raise QuestionFileError(
                f"questions {file}", expected='an "input" with a question', found=f"{len(found)} rows, all without",
                fix=UNJOINED,
            )
        questions.extend(found)
    if any(not question.qid for question in questions):
        questions = _named(questions)
    return questions if limit is None else spread(questions, limit)


def question_files(path: str | Path | Sequence[str | Path]) -> list[Path]:
    """The files that are read, `-` being standard input.

    Raises QuestionFileError if a path names none, and if two name the same.
    """
    paths = [Path(path)] if isinstance(path, (str, Path)) else [Path(one) for one in path]
    paths = [STDIN if path == Path("-") else path for path in paths]
    refuse_ours(
        paths, expected="questions", error=QuestionFileError, subject="questions", fix="name a file of questions"
    )
    return files_of(paths, ENDINGS, subject="questions", error=QuestionFileError)


def given_passages(question: Question) -> list[PassageId | Passage]:
    """The passages that the file gives for a question, ids as such; raises QuestionFileError if it gives none."""
    if question.passages is None:
        unread = ", ".join(f'"{name}"' for name in question.unread)
        raise QuestionFileError(
            f"question {question.qid!r}", expected='"ctxs", "passages" or "ctx_ids"',
            found=f"none of them; {unread} of the row is not read" if unread else "none of them",
            fix="rename the field that has the passages, or retrieve them: --passages retrieve",
        )
    return [item if isinstance(item, Passage) else PassageId(item) for item in question.passages]


def _named(questions: list[Question]) -> list[Question]:
    """The questions, those without an id named by their number, or by what no other id is if that one is taken."""
    taken = {question.qid.strip() for question in questions}
    named = []
    for number, question in enumerate(questions, start=1):
        names = chain([str(number)], (f"{number}-{more}" for more in count(2)))
        qid = question.qid or next(name for name in names if name not in taken)
        taken.add(qid)
        named.append(replace(question, qid=qid))
    return named


def _questions(path: Path) -> Iterator[Row]:
    for subject, row in _rows(path):
        if not isinstance(row, dict):
            raise QuestionFileError(subject, expected="a JSON object", found=type(row).__name__, fix=LAYOUTS)
        yield Row(subject, row)


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Every row with the words that name it in an error."""
    subject = f"questions {path}"
    with open_named(path, subject, QuestionFileError) as (stream, packed):

        def most() -> int:
            return MAX_BYTES if packed is None else min(MAX_UNPACKED_BYTES, packed.limit())

        yield from json_rows(stream, subject, most=most, fix=LAYOUTS)
