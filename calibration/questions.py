"""Question files in KILT's, FiD's and our own layout, told apart by their content."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from calibration.evidence import Evidence, evidence_from_outputs
from calibration.spread import spread
from runtime.candidates import PassageId
from runtime.contract import QuestionFileError
from runtime.store import Passage

__all__ = ["Question", "given_passages", "read_questions"]

LAYOUTS = (
    'use KILT JSONL ("id", "input", "output"), a JSON array as FiD reads it ("question", "answers", "ctxs"), or JSONL '
    'rows with "question", "answers" and optional "qid", "ctx_ids", "gold_ids"'
)


@dataclass(frozen=True)
class Question:
    """One question. `answers` is empty where the file has none; any of them is right.

    `passages` are those that the file gives, best first: ids in a store, or texts; None where it gives none. `evidence`
    is what KILT's gold names as proof, None in other layouts and where a row has no gold at all; `task` is the row's
    own word for the task that it belongs to.
    """

    qid: str
    question: str
    answers: tuple[str, ...]
    passages: tuple[int | str | Passage, ...] | None
    gold_ids: tuple[int | str, ...]
    evidence: tuple[Evidence, ...] | None = None
    task: str | None = None


def read_questions(path: str | Path, limit: int | None = None) -> list[Question]:
    """At most `limit` questions of a file, in even steps over it; None: all.

    A row without an id gets one that no row of the file has.

    Raises QuestionFileError, with the line or the row counted from 1: not UTF-8, not JSON, in none of the known
    layouts, a field of another type; or a file without questions.
    """
    path = Path(path)
    questions = [row.question() for row in _questions(path)]
    if any(not question.qid for question in questions):
        questions = _named(questions)
    if not questions:
        raise QuestionFileError(f"questions {path}", expected="at least one question", found="none", fix=LAYOUTS)
    return questions if limit is None else spread(questions, limit)


def given_passages(question: Question) -> list[PassageId | Passage]:
    """The passages that the file gives for a question, ids as such; raises QuestionFileError where it gives none."""
    if question.passages is None:
        raise QuestionFileError(
            f"question {question.qid!r}", expected='"ctxs" or "ctx_ids"', found="neither",
            fix="retrieve the passages: --passages retrieve",
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


def _questions(path: Path) -> Iterator[_Row]:
    for subject, row in _rows(path):
        if not isinstance(row, dict):
            raise QuestionFileError(subject, expected="a JSON object", found=type(row).__name__, fix=LAYOUTS)
        yield _Row(subject, row)


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Every row with the words that name it in an error."""
    subject = f"questions {path}"
    try:
        with path.open(encoding="utf-8-sig") as stream:
            first = next((line for line in stream if not line.isspace()), "")
            stream.seek(0)
            if first.lstrip().startswith("["):
                rows = _parse(stream.read(), subject)
                yield from ((f"{subject}, row {number}", row) for number, row in enumerate(rows, start=1))
                return
            for number, line in enumerate(stream, start=1):
                if not line.isspace():
                    yield f"{subject}, line {number}", _parse(line, f"{subject}, line {number}")
    except UnicodeDecodeError as reason:
        raise QuestionFileError(
            subject, expected="UTF-8", found=str(reason), fix="convert the file to UTF-8"
        ) from None
    except OSError as reason:
        raise QuestionFileError(
            subject, expected="a readable file", found=str(reason), fix="name another file"
        ) from None


def _parse(text: str, subject: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as reason:
        raise QuestionFileError(subject, expected="JSON", found=str(reason), fix=LAYOUTS) from None


@dataclass(frozen=True)
class _Row:
    """A row of the file, and its name."""

    subject: str
    data: dict[str, Any]

    def question(self) -> Question:
        """The question of the row; its `qid` is empty where the row has no id."""
        if "input" in self.data and "question" not in self.data:
            return Question(
                self.qid(), self._text("input"), self._outputs(), None, (), self._evidence(), self._task()
            )
        return Question(
            self.qid(), self._text("question"), self._answers(), self._passages(), self._ids("gold_ids") or (),
            self._evidence(), self._task(),
        )

    def qid(self) -> str:
        """The row's id, empty where it has none or a blank one."""
        key = "qid" if "qid" in self.data else "id"
        value = self.data.get(key)
        if value is not None and not _is_id(value):
            raise self._error(f'a "{key}" that is a string or an integer', key)
        return "" if value is None or not str(value).strip() else str(value)

    def _error(self, expected: str, key: str) -> QuestionFileError:
        found = repr(self.data[key])[:80] if key in self.data else f'no "{key}"'
        return QuestionFileError(self.subject, expected=expected, found=found, fix=LAYOUTS)

    def _text(self, key: str) -> str:
        value = self.data.get(key)
        if not isinstance(value, str):
            raise self._error(f'a "{key}" that is a string', key)
        return value

    def _list(self, key: str) -> list[Any]:
        value = self.data.get(key, [])
        if not isinstance(value, list):
            raise self._error(f'"{key}" that is a list', key)
        return value

    def _answers(self) -> tuple[str, ...]:
        answers = self._list("answers")
        if not all(isinstance(answer, str) for answer in answers):
            raise self._error('"answers" that are strings', "answers")
        return tuple(answers)

    def _outputs(self) -> tuple[str, ...]:
        """KILT's answers; an output without one holds provenance only."""
        outputs = self._list("output")
        if not all(isinstance(item, dict) and isinstance(item.get("answer"), str | None) for item in outputs):
            raise self._error('"output" whose items are objects with an "answer" that is a string', "output")
        return tuple(item["answer"] for item in outputs if item.get("answer") is not None)

    def _evidence(self) -> tuple[Evidence, ...] | None:
        self._outputs()
        try:
            return evidence_from_outputs(self._list("output")) if self.data.get("output") else None
        except ValueError as reason:
            raise self._error(str(reason), "output") from None

    def _task(self) -> str | None:
        task = self.data.get("task")
        if task is not None and not _is_id(task):
            raise self._error('a "task" that is a string or an integer', "task")
        return None if task is None else str(task)

    def _passages(self) -> tuple[int | str | Passage, ...] | None:
        if "ctxs" not in self.data:
            return self._ids("ctx_ids")
        passages = []
        for item in self._list("ctxs"):
            context = item if isinstance(item, dict) else {}
            title, text, identifier = context.get("title", ""), context.get("text"), context.get("id")
            known = identifier is None or _is_id(identifier)
            if not isinstance(title, str) or not isinstance(text, str) or not known:
                raise self._error('"ctxs" that are objects with "text", and "title" and "id" if any', "ctxs")
            passages.append(Passage(identifier, title, text))
        return tuple(passages)

    def _ids(self, key: str) -> tuple[int | str, ...] | None:
        if key not in self.data:
            return None
        ids = self._list(key)
        if not all(map(_is_id, ids)):
            raise self._error(f'"{key}" that are strings or integers', key)
        return tuple(ids)


def _is_id(value: object) -> bool:
    return isinstance(value, str) or type(value) is int
