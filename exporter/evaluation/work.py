"""An evaluation's answers on disk, a span of questions at a time: the same command, given again, continues from them.

    WORK/plan.json         the Plan
    WORK/1-00256.json      the second model's answers to the questions from the 257th on, with their digest
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path

from glimmer_export.exporter.evaluation.passages import Asked
from glimmer_export.exporter.files.links import Inputs, check_apart, require_no_link_below, resolved
from glimmer_export.exporter.files.publish import check_place
from glimmer_export.exporter.files.whole_file import remove_unfinished, replace_file, write_errors
from glimmer_export.runtime import Answer, RankedPassage
from glimmer_export.runtime.contract import GlimmerError, OutputError, errors, is_there, record_to_json
from glimmer_export.runtime.contract.records import read_json, record_from_json

__all__ = ["EvaluationWork", "Kept", "Plan", "check_work", "questions_digest", "remove_work"]

PLAN, SPANS = "plan.json", "[0-9]*-[0-9]*.json"


@dataclass(frozen=True)
class Plan:
    """What decides the answers: digests of models, questions with their passages and store; k and m; how is asked."""

    models: tuple[str, ...]
    questions: str
    store: str | None
    grid: tuple[str, ...]
    batch_size: int
    threads: int | None
    backend: str
    compute_precision: str
    versions: dict[str, str]


@dataclass(frozen=True)
class Reply:
    """What figures need of an Answer: `scores` are by passage, `error` is its class and four parts, or empty."""

    answer: str | None
    scores: tuple[float | None, ...]
    selected: tuple[int, ...]
    error: tuple[str, ...]


@dataclass(frozen=True)
class Span:
    """A model's replies to consecutive questions, by cell; `digest` is over them, the file's name and the plan."""

    digest: str
    cells: tuple[tuple[Reply, ...], ...]


class EvaluationWork:
    """The folder of an evaluation under way."""

    def __init__(self, directory: Path, plan: Plan) -> None:
        """Begin, or continue what is there.

        Raises OutputError for a folder of something else or of an evaluation with another plan, for a damaged plan,
        for a link, and where nothing can be written.
        """
        self._directory, self._plan = directory, record_to_json(plan)
        subject, anew = f"unfinished evaluation {directory}", f"remove {directory} to begin anew"
        path = directory / PLAN
        with write_errors(directory):
            require_no_link_below(directory.parent, directory.name, subject=subject)
            directory.mkdir(parents=True, exist_ok=True)
            remove_unfinished(directory)
            strange = sorted(item.name for item in directory.iterdir())
            if not strange:
                replace_file(path, self._plan.encode())
            elif not is_there(path):
                raise OutputError(
                    f"directory {directory}", expected="the work of an evaluation, or nothing", found=strange[0],
                    fix="name another: --work",
                )
        data = read_json(path, error=OutputError, fix=anew)
        earlier = record_from_json(Plan, data, error=OutputError, subject=str(path), fix=anew)
        for name in (item.name for item in fields(Plan)):
            if (found := getattr(earlier, name)) != (asked := getattr(plan, name)):
                raise OutputError(
                    subject, expected=f"{name} {asked}, as asked for"[:120], found=str(found)[:120],
                    fix=f"give it what it began with, or {anew}",
                )

    def of_model(self, place: int) -> Kept:
        """What is kept of the model at this place among those that are evaluated."""
        return Kept(self._directory, self._plan, place)


@dataclass(frozen=True)
class Kept:
    """One model's answers: a file a span."""

    directory: Path
    plan: str
    model: int

    def read(self, first: int, asked: Sequence[Asked]) -> list[list[Answer]] | None:
        """By cell, the answers to the questions that begin with number `first`; None if there are none, or damaged."""
        path = self._path(first)
        try:
            data = read_json(path, error=OutputError, fix="")
            span = record_from_json(Span, data, error=OutputError, subject=path.name, fix="")
        except OutputError:
            return None
        if span.digest != self._digest(path, span.cells):
            return None
        return [list(map(_answer, asked, of_cell)) for of_cell in span.cells]

    def write(self, first: int, answers: Sequence[Sequence[Answer]]) -> None:
        """Keep answers, by cell, to the questions that begin with number `first`; raises OutputError as a full disk."""
        path, cells = self._path(first), tuple(tuple(map(_reply, of_cell)) for of_cell in answers)
        replace_file(path, json.dumps(asdict(Span(self._digest(path, cells), cells))).encode())

    def _path(self, first: int) -> Path:
        return self.directory / f"{self.model}-{first:05d}.json"

    def _digest(self, path: Path, cells: Sequence[Sequence[Reply]]) -> str:
        return _sha256([self.plan, path.name, *([asdict(reply) for reply in of_cell] for of_cell in cells)])


def check_work(directory: Path, inputs: Inputs) -> Path:
    """Where the folder is to be, its links resolved; raises OutputError if it is not apart from `inputs`, or cannot be.

    Nothing is left behind.
    """
    check_apart(directory, inputs)
    place = resolved(directory)
    with write_errors(directory):
        check_place(place)
    return place


def remove_work(directory: Path) -> None:
    """Remove what an evaluation keeps in its folder, the plan last, and the folder unless something else is in it."""
    with write_errors(directory):
        for path in (*directory.glob(SPANS), directory / PLAN):
            path.unlink(missing_ok=True)
    with suppress(OSError):
        directory.rmdir()


def questions_digest(asked: Sequence[Asked]) -> str:
    """SHA-256 over questions, tasks, golds and the passages found, in their order."""
    return _sha256([
        (
            asdict(item.question), item.task, str(item.error),
            [(found.number, asdict(found.passage)) for found in item.candidates],
        )
        for item in asked
    ])  # fmt: skip


def _sha256(content: object) -> str:
    return sha256(json.dumps(content, default=_sorted).encode()).hexdigest()


def _sorted(pages: frozenset[str | None]) -> list[str]:
    return sorted(map(str, pages))


def _reply(answer: Answer) -> Reply:
    error = answer.error
    parts = () if error is None else (type(error).__name__, error.subject, error.expected, error.found, error.fix)
    return Reply(answer.answer, answer.scores, answer.selected, parts)


def _answer(asked: Asked, reply: Reply) -> Answer:
    """The answer as far as figures are drawn from it."""
    passages = tuple(
        RankedPassage(candidate.passage, candidate.retrieval_score, score, read=place in reply.selected)
        for place, (candidate, score) in enumerate(zip(asked.candidates, reply.scores, strict=False))
    )
    error = None
    if reply.error:
        name, subject, expected, found, fix = reply.error
        kind: type[GlimmerError] = getattr(errors, name)
        error = kind(subject, expected=expected, found=found, fix=fix)
    return Answer(asked.question.question, reply.answer, passages=passages, error=error)
