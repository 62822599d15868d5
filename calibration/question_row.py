"""A row of a file of questions, in KILT's, FiD's, Atlas's, NQ-open's or our own layout: told apart by their fields."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from glimmer_export.calibration.public_fields import (
    Evidence,
    evidence_from_outputs,
    evidence_score,
    page_name,
    passage_fields,
    present_fields,
)
from glimmer_export.runtime.contract import QuestionFileError
from glimmer_export.runtime.store import Passage

__all__ = ["LAYOUTS", "UNJOINED", "Question", "Row"]

LAYOUTS = (
    'use KILT JSONL ("id", "input", "output"), a JSON array as FiD reads it ("question", "answers" or "target", '
    '"ctxs"), or JSONL rows with "question" and "answers" (NQ-open: "answer"), and optionally "qid", "ctxs" (Atlas: '
    '"passages"), "ctx_ids", "gold_ids"'
)
UNJOINED = (
    "KILT publishes TriviaQA without questions: join them by id, as docs/guide/training.md does "
    "(https://github.com/facebookresearch/KILT has the script)"
)
"""The fix for rows of KILT whose questions are missing."""
ANSWERS = ("answers", "answer", "output", "target")
"""Where the answers stand: the first that has one. FiD and Atlas train on the one `target`, and grade by `answers`."""
PASSAGES = ("ctxs", "passages")
READ = {"id", "_id", "qid", "question", "input", *ANSWERS, *PASSAGES, "ctx_ids", "gold_ids", "task"}
ANSWER_LIKE = re.compile("answer|target|label|gold|response|reference|completion|solution", re.IGNORECASE)


@dataclass(frozen=True, slots=True)  # a file may have a million of them
class Question:
    """One question. `answers` is empty if the file has none; any of them is right.

    `passages` are those that the file gives, best first: ids in a store, or texts; None if it gives none. `evidence`
    is what KILT's gold names as proof, None in other layouts and if a row has no gold at all; `evidence_score` says how
    well the best of it was found in KILT's Wikipedia. `task` is the row's own word for the task that it belongs to.
    `skipped` counts the passages that could not be taken, for having no text; `unread` names the row's fields that mean
    nothing here.
    """

    qid: str
    question: str
    answers: tuple[str, ...]
    passages: tuple[int | str | Passage, ...] | None
    gold_ids: tuple[int | str, ...]
    evidence: tuple[Evidence, ...] | None = None
    task: str | None = None
    skipped: int = 0
    unread: tuple[str, ...] = field(default=(), compare=False)
    evidence_score: float | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Row:
    """A row of the file, and its name. A field that is null is absent."""

    subject: str
    data: dict[str, Any]

    def question(self) -> Question:
        """The question of the row; its `qid` is empty if the row has no id."""
        asked = "input" if self._get("question") is None and self._get("input") is not None else "question"
        if self._get(asked) is None and self._get("output") is not None:
            raise self._error('an "input" that is a string', "input", fix=UNJOINED)
        passages, skipped = self._passages()
        evidence, score = self._evidence()
        return Question(
            self.qid(), self._text(asked), self._answers(), passages, self._ids("gold_ids") or (), evidence,
            self._task(), skipped, tuple(name for name in self.data if name not in READ), score,
        )

    def _get(self, key: str) -> Any:
        return self.data.get(key)

    def _error(self, expected: str, key: str, *, fix: str = LAYOUTS) -> QuestionFileError:
        found = repr(self.data[key])[:80] if key in self.data else f'no "{key}" among {present_fields(self.data)}'
        return QuestionFileError(self.subject, expected=expected, found=found, fix=fix)

    def qid(self) -> str:
        """The row's id, empty if it has none or a blank one."""
        key = next((key for key in ("qid", "id", "_id") if self._get(key) is not None), None)
        if key is not None and not _is_id(self.data[key]):
            raise self._error(f'a "{key}" that is a string or an integer', key)
        return "" if key is None or not str(self.data[key]).strip() else str(self.data[key])

    def _text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str):
            raise self._error(f'a "{key}" that is a string', key)
        return value

    def _list(self, key: str) -> list[Any]:
        value = [] if self._get(key) is None else self._get(key)
        if not isinstance(value, list):
            raise self._error(f'"{key}" that is a list', key)
        return value

    def _answers(self) -> tuple[str, ...]:
        """Those of the first field that has some; a field that may have them under another name is an error."""
        found = {key: self._outputs() if key == "output" else self._strings(key) for key in ANSWERS}
        given = [answers for answers in found.values() if any(answer.strip() for answer in answers)]
        # Those of white space are no answers, and are left to what grades.
        answers = next(chain(given, filter(None, found.values())), ())
        if not given:
            for name, value in self.data.items():
                if name not in READ and ANSWER_LIKE.search(name) and _has_text(value):
                    raise QuestionFileError(
                        self.subject, expected=f"answers in one of {', '.join(ANSWERS)}",
                        found=f'"{name}", which is not read', fix=f"rename it, or leave it out; {LAYOUTS}",
                    )
        return answers

    def _strings(self, key: str) -> tuple[str, ...]:
        """A list of strings; in a field of the singular, one string too."""
        value = self._get(key)
        if isinstance(value, str) and key != "answers":
            return (value,)
        answers = self._list(key)
        if not all(isinstance(answer, str) for answer in answers):
            raise self._error(f'"{key}" that are strings', key)
        return tuple(answers)

    def _outputs(self) -> tuple[str, ...]:
        """KILT's answers; an output without one holds provenance only."""
        outputs = self._list("output")
        if not all(isinstance(item, dict) and isinstance(item.get("answer"), str | None) for item in outputs):
            raise self._error('"output" whose items are objects with an "answer" that is a string', "output")
        return tuple(item["answer"] for item in outputs if item.get("answer") is not None)

    def _evidence(self) -> tuple[tuple[Evidence, ...] | None, float | None]:
        """The evidence and its score."""
        self._outputs()
        outputs = self._list("output")
        try:
            return (evidence_from_outputs(outputs), evidence_score(outputs)) if outputs else (None, None)
        except ValueError as reason:
            raise self._error(str(reason), "output") from None

    def _task(self) -> str | None:
        task = self.data.get("task")
        if task is not None and not _is_id(task):
            raise self._error('a "task" that is a string or an integer', "task")
        return None if task is None else str(task)

    def _passages(self) -> tuple[tuple[int | str | Passage, ...] | None, int]:
        """The row's passages, best first, and how many more had no text."""
        key = next((key for key in PASSAGES if self._get(key) is not None), None)
        if key is None:
            return self._ids("ctx_ids"), 0
        taken: list[Passage] = []
        scores: list[float | None] = []
        items = self._list(key)
        for item in items:
            if not isinstance(item, dict):
                raise self._error(f'"{key}" that are objects with "text", and "title" and "id" if any', key)
            passage, score = self._passage(key, item)
            if passage is not None:
                taken.append(passage)
                scores.append(score)
        # Of equal scores the first comes first, as in FiD; those without one come last.
        ranked = sorted(zip(scores, taken, strict=True), key=lambda pair: math.inf if pair[0] is None else -pair[0])
        return tuple(passage for _, passage in ranked), len(items) - len(taken)

    def _passage(self, key: str, item: dict[str, Any]) -> tuple[Passage | None, float | None]:
        """One passage, None if it has no text, and its score."""
        fields = passage_fields(item)
        title, text, identifier = fields.get("title", ""), fields.get("text", ""), fields.get("id")
        has_text = "text" in item or "contents" in item
        known = identifier is None or _is_id(identifier)
        if not isinstance(title, str) or not isinstance(text, str) or not known or not has_text:
            raise self._error(
                f'"{key}" that are objects with "text", and "title" and "id" if any, not {present_fields(item)}', key
            )
        score = item.get("score")
        try:
            number = None if score is None or isinstance(score, bool) else float(score)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if (score is not None and number is None) or (number is not None and math.isnan(number)):
            raise QuestionFileError(
                self.subject, expected=f'a "score" of each of "{key}" that is a number', found=repr(score)[:80],
                fix="repair the scores, or leave them out if the passages stand best first",
            )
        try:
            page = page_name(fields.get("wikipedia_id"))
        except ValueError as reason:
            raise self._error(f'"{key}" that have {reason}', key) from None
        return (Passage(identifier, title, text, page) if text.strip() else None), number

    def _ids(self, key: str) -> tuple[int | str, ...] | None:
        if self._get(key) is None:
            return None
        ids = self._list(key)
        if not all(map(_is_id, ids)):
            raise self._error(f'"{key}" that are strings or integers', key)
        return tuple(ids)


def _is_id(value: object) -> bool:
    return isinstance(value, str) or type(value) is int


def _has_text(value: object) -> bool:
    """Whether a value is text or has some in it, as answers would; flags and numbers are not."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return bool(value) and (isinstance(value, str) or any(map(_has_text, inside)))
