"""Question files in KILT's, FiD's, Atlas's, NQ-open's and our own layout, by their fields; and KILT's predictions."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from calibration.passage_fields import passage_fields, present_fields
from calibration.text_files import BOM, compression_of, files_of, open_bytes, reading
from runtime.candidates import PassageId
from runtime.contract import QuestionFileError
from runtime.store import Passage

__all__ = ["Question", "given_passages", "kilt_predictions", "read_questions"]

LAYOUTS = (
    'use KILT JSONL ("id", "input", "output"), a JSON array as FiD reads it ("question", "answers" or "target", '
    '"ctxs"), or JSONL rows with "question" and "answers" (NQ-open: "answer"), and optionally "qid", "ctxs" (Atlas: '
    '"passages"), "ctx_ids", "gold_ids"'
)
ENDINGS = tuple(f".{layout}{packed}" for layout in ("jsonl", "json", "ndjson") for packed in ("", ".gz", ".zst"))
"""Of the files that are taken from a folder."""
ANSWERS = ("answers", "answer", "output", "target")
"""Where the answers stand: the first that has one. FiD and Atlas train on the one `target`, and grade by `answers`."""
PASSAGES = ("ctxs", "passages")
READ = {"id", "_id", "qid", "question", "input", *ANSWERS, *PASSAGES, "ctx_ids", "gold_ids"}
ANSWER_LIKE = re.compile("answer|target|label|gold|response|reference|completion|solution", re.IGNORECASE)
MAX_UNPACKED_BYTES = 1 << 30
"""Of a compressed file: questions are held in memory, and a few megabytes of gzip can hold gigabytes."""


@dataclass(frozen=True)
class Question:
    """One question. `answers` is empty where the file has none; any of them is right.

    `passages` are those that the file gives, best first: ids in a store, or texts; None where it gives none. `skipped`
    counts those that could not be taken, for having no text; `unread` names the row's fields that mean nothing here.
    """

    qid: str
    question: str
    answers: tuple[str, ...]
    passages: tuple[int | str | Passage, ...] | None
    gold_ids: tuple[int | str, ...]
    skipped: int = 0
    unread: tuple[str, ...] = field(default=(), compare=False)


def read_questions(path: str | Path | Sequence[str | Path], limit: int | None = None) -> list[Question]:
    """The first `limit` questions of a file, or all; of several files, or of a folder's, one file after the other.

    Files are plain, in gzip or in zstd. A passage without text is skipped and counted; passages that have scores come
    by their scores, best first, as in FiD.

    Raises QuestionFileError, with the line or the row counted from 1: not UTF-8, not JSON, in none of the known
    layouts, a field of another type, answers under a name that is not known; or a file without questions.
    """
    paths = [Path(path)] if isinstance(path, (str, Path)) else [Path(one) for one in path]
    files = files_of(paths, ENDINGS, subject="questions", error=QuestionFileError)
    questions: list[Question] = []
    for file in files:
        left = None if limit is None else limit - len(questions)
        found = list(islice(_questions(file, first=len(questions) + 1), left))
        if not found and left != 0:
            raise QuestionFileError(f"questions {file}", expected="at least one question", found="none", fix=LAYOUTS)
        questions.extend(found)
    return questions


def given_passages(question: Question) -> list[PassageId | Passage]:
    """The passages that the file gives for a question, ids as such; raises QuestionFileError where it gives none."""
    if question.passages is None:
        unread = ", ".join(f'"{name}"' for name in question.unread)
        raise QuestionFileError(
            f"question {question.qid!r}", expected='"ctxs", "passages" or "ctx_ids"',
            found=f"none of them; {unread} of the row is not read" if unread else "none of them",
            fix="rename the field that has the passages, or retrieve them: --passages retrieve",
        )
    return [item if isinstance(item, Passage) else PassageId(item) for item in question.passages]


def kilt_predictions(questions: Sequence[Question], answers: Sequence[str | None]) -> str:
    """The content of a file of predictions, one KILT row a question; None becomes an empty answer."""
    rows = (
        {"id": question.qid, "input": question.question, "output": [{"answer": answer or ""}]}
        for question, answer in zip(questions, answers, strict=True)
    )
    return "".join(json.dumps(row) + "\n" for row in rows)


def _questions(path: Path, first: int) -> Iterator[Question]:
    """`first` is the number of the first row, which is its id where it has no other."""
    for number, (subject, row) in enumerate(_rows(path), start=first):
        if not isinstance(row, dict):
            raise QuestionFileError(subject, expected="a JSON object", found=type(row).__name__, fix=LAYOUTS)
        yield _Row(subject, row).question(number)


def _rows(path: Path) -> Iterator[tuple[str, Any]]:
    """Every row with the words that name it in an error."""
    subject = f"questions {path}"
    with reading(subject, QuestionFileError):
        compression = compression_of(path, path.name)
    with reading(subject, QuestionFileError, compression), open_bytes(path, compression) as stream:
        numbered = enumerate(_lines(stream, subject, MAX_UNPACKED_BYTES if compression else None), start=1)
        begun = False
        for number, line in numbered:
            if line.isspace():
                continue
            if not begun and line.lstrip().startswith("["):
                rows = _parse(line + "".join(rest for _, rest in numbered), subject)
                yield from ((f"{subject}, row {place}", row) for place, row in enumerate(rows, start=1))
                return
            begun = True
            yield f"{subject}, line {number}", _parse(line, f"{subject}, line {number}")


def _lines(stream: BinaryIO, subject: str, most: int | None) -> Iterator[str]:
    """Lines without a mark before them that says they are UTF-8; at most so many bytes of them."""
    left = most
    while content := stream.readline(-1 if left is None else left + 1):
        if left is not None and (left := left - len(content)) < 0:
            raise QuestionFileError(
                subject, expected=f"at most {most} bytes, uncompressed", found="more",
                fix="unpack the file if it is sound, or split it",
            )
        if content.startswith(b"PAR1"):
            raise QuestionFileError(
                subject, expected="JSON", found="a Parquet file",
                fix="write its rows as JSON lines, as by pandas: `read_parquet(FILE).to_json(OUT, orient='records', "
                "lines=True)`",
            )
        try:
            yield content.decode("utf-8").removeprefix(BOM)
        except UnicodeDecodeError as reason:
            raise QuestionFileError(
                subject, expected="UTF-8", found=str(reason), fix="convert the file to UTF-8"
            ) from None


def _parse(text: str, subject: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as reason:
        raise QuestionFileError(subject, expected="JSON", found=str(reason), fix=LAYOUTS) from None


@dataclass(frozen=True)
class _Row:
    """A row of the file, and its name. A field that is null is absent."""

    subject: str
    data: dict[str, Any]

    def question(self, number: int) -> Question:
        """The question of the row that is `number` among all, which is its id where it has no other."""
        asked = "input" if self._get("question") is None and self._get("input") is not None else "question"
        passages, skipped = self._passages()
        return Question(
            self._qid(number), self._text(asked), self._answers(), passages, self._ids("gold_ids") or (), skipped,
            tuple(name for name in self.data if name not in READ),
        )

    def _get(self, key: str) -> Any:
        return self.data.get(key)

    def _error(self, expected: str, key: str) -> QuestionFileError:
        found = repr(self.data[key])[:80] if key in self.data else f'no "{key}" among {present_fields(self.data)}'
        return QuestionFileError(self.subject, expected=expected, found=found, fix=LAYOUTS)

    def _qid(self, number: int) -> str:
        key = next((key for key in ("qid", "id", "_id") if self._get(key) is not None), None)
        if key is not None and not _is_id(self.data[key]):
            raise self._error(f'a "{key}" that is a string or an integer', key)
        return str(number if key is None else self.data[key])

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
        answers = next((answers for answers in found.values() if answers), ())
        if not answers:
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
        if not all(isinstance(item, dict) and isinstance(item.get("answer") or "", str) for item in outputs):
            raise self._error('"output" whose items are objects with an "answer" that is a string', "output")
        return tuple(item["answer"] for item in outputs if item.get("answer") is not None)

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
        """One passage, None where it has no text, and its score."""
        fields = passage_fields(item)
        title, text, identifier = fields.get("title", ""), fields.get("text", ""), fields.get("id")
        named = "text" in item or "contents" in item
        known = identifier is None or _is_id(identifier)
        if not isinstance(title, str) or not isinstance(text, str) or not known or not named:
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
                fix="repair the scores, or leave them out where the passages stand best first",
            )
        return (Passage(identifier, title, text) if text.strip() else None), number

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
    """Whether a value is text or has some in it, as answers would; flags and numbers are none."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return bool(value) and (isinstance(value, str) or any(map(_has_text, inside)))
