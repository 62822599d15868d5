"""Question files in KILT's, FiD's and our own layout, told apart by their content; and predictions in KILT's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calibration.spread import spread
from runtime.candidates import PassageId
from runtime.contract import QuestionFileError
from runtime.store import Passage

__all__ = ["Question", "given_passages", "kilt_predictions", "read_questions"]

LAYOUTS = (
    'use KILT JSONL ("id", "input", "output"), a JSON array as FiD reads it ("question", "answers", "ctxs"), or JSONL '
    'rows with "question", "answers" and optional "qid", "ctx_ids", "gold_ids"'
)


@dataclass(frozen=True)
class Question:
    """One question. `answers` is empty where the file has none; any of them is right.

    `passages` are those that the file gives, best first: ids in a store, or texts; None where it gives none.
    """

    qid: str
    question: str
    answers: tuple[str, ...]
    passages: tuple[int | str | Passage, ...] | None
    gold_ids: tuple[int | str, ...]


def read_questions(path: str | Path, limit: int | None = None) -> list[Question]:
    """At most `limit` questions of a file, in even steps over it; None: all.

    Raises QuestionFileError, with the line or the row counted from 1: not UTF-8, not JSON, in none of the known
    layouts, a field of another type; or a file without questions.
    """
    path = Path(path)
    questions = list(_questions(path))
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


def kilt_predictions(questions: Sequence[Question], answers: Sequence[str | None]) -> str:
    """The content of a file of predictions, one KILT row a question; None becomes an empty answer."""
    rows = (
        {"id": question.qid, "input": question.question, "output": [{"answer": answer or ""}]}
        for question, answer in zip(questions, answers, strict=True)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


def _questions(path: Path) -> Iterator[Question]:
    for number, (subject, row) in enumerate(_rows(path), start=1):
        if not isinstance(row, dict):
            raise QuestionFileError(subject, expected="a JSON object", found=type(row).__name__, fix=LAYOUTS)
        yield _Row(subject, row).question(number)


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

    def question(self, number: int) -> Question:
        """The question of the row that is `number` in its file, which is its id where it has no other."""
        if "input" in self.data and "question" not in self.data:
            return Question(self._qid("id", number), self._text("input"), self._outputs(), None, ())
        return Question(
            self._qid("qid" if "qid" in self.data else "id", number), self._text("question"), self._answers(),
            self._passages(), self._ids("gold_ids") or (),
        )

    def _error(self, expected: str, key: str) -> QuestionFileError:
        found = repr(self.data[key])[:80] if key in self.data else f'no "{key}"'
        return QuestionFileError(self.subject, expected=expected, found=found, fix=LAYOUTS)

    def _qid(self, key: str, number: int) -> str:
        value = self.data.get(key, number)
        if not _is_id(value):
            raise self._error(f'a "{key}" that is a string or an integer', key)
        return str(value)

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
        if not all(isinstance(item, dict) and isinstance(item.get("answer", ""), str) for item in outputs):
            raise self._error('"output" whose items are objects with an "answer" that is a string', "output")
        return tuple(item["answer"] for item in outputs if "answer" in item)

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
