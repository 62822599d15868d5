"""Rows to train on: questions of files with their passages, given or retrieved, or those of a generated world."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glimmer_export.calibration.questions import Question, given_passages, question_files, read_questions
from glimmer_export.exporter.answering.task_files import TaskFile, task_file, task_name
from glimmer_export.exporter.demo.world import World
from glimmer_export.exporter.report.progress import progress_bar
from glimmer_export.exporter.training.passages import PassageTable
from glimmer_export.exporter.training.ragged import Ragged
from glimmer_export.exporter.training.relevance import RelevanceFilter, has_answer, has_provenance, known_gold
from glimmer_export.exporter.training.texts import RowText
from glimmer_export.runtime.candidates import Candidate, PassageSource, candidates_from_given, candidates_from_search
from glimmer_export.runtime.contract import OptionError, PassageError, QuestionError, TrainingError
from glimmer_export.runtime.store import Passage

__all__ = ["RowCounts", "RowOptions", "TaskFile", "TrainingRows", "rows_from_files", "rows_from_world", "task_file"]

NO_ANSWER, NO_PASSAGE, FILTERED = "no answer", "no passage", "no relevant passage"


@dataclass(frozen=True)
class RowOptions:
    """How rows get their passages.

    At most `num_retrieved` (k) of them, the largest k of all phases: those `given` with the questions, or retrieved.
    `relevance` says which rows are left out, with the `threshold` that `provenance` has.
    """

    num_retrieved: int
    given: bool = False
    relevance: RelevanceFilter = "none"
    threshold: float = 0.5


@dataclass
class RowCounts:
    """How many questions were read and kept, and why the others were not: by the error's name, or the reason.

    `answers` are the answers left out, for they cannot be encoded; `skipped_passages` the given ones without text.
    """

    read: int = 0
    kept: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    answers: int = 0
    skipped_passages: int = 0

    def since(self, before: RowCounts) -> RowCounts:
        """What was counted after `before`."""
        return RowCounts(
            self.read - before.read, self.kept - before.kept, self.left_out - before.left_out,
            self.answers - before.answers, self.skipped_passages - before.skipped_passages,
        )

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "read": self.read, "kept": self.kept, "left_out": dict(self.left_out), "answers_left_out": self.answers,
            "skipped_passages": self.skipped_passages,
        }

    def __str__(self) -> str:
        """For an error, or a line of a report."""
        reasons = "".join(f", {count} left out: {reason}" for reason, count in self.left_out.items())
        return f"{self.kept} of {self.read} questions{reasons}"


class TrainingRows:
    """Rows in the order of their files. Everything but the texts is numbers in arrays: a million rows fit in memory.

    `question_ids` (tokens,) and `candidates` (passages,) int32 by row, the latter places in the table of `passages`,
    best first. `gold` (passages,) int32 are the gold passages, whether they were retrieved or not; if a row has none
    that is known, those of the candidates that have an answer, and of a world's row none. `task` (rows,) int32 counts
    within `tasks`. `answers` are texts, to grade by.
    """

    def __init__(self, passages: PassageTable) -> None:
        self.passages = passages
        self.questions: list[str] = []
        self.answers: list[tuple[str, ...]] = []
        self.tasks: list[str] = []
        self.question_ids, self.candidates, self.gold = Ragged(), Ragged(), Ragged()
        self.counts = RowCounts()
        self._tasks = array("i")
        self._answer_ids, self._answers_of = Ragged(), Ragged()

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def task(self) -> NDArray[np.int32]:
        """The task of each row, (rows,) int32."""
        return np.array(self._tasks, np.int32)

    def num_answers(self, row: int) -> int:
        """How many answers a row has, one at least."""
        return len(self._answers_of[row])

    def answer_ids(self, row: int, answer: int) -> NDArray[np.int32]:
        """The tokens of one of a row's answers, (tokens,) int32, EOS last unless it was cut."""
        return self._answer_ids[int(self._answers_of[row][answer])]

    def append(
        self, question: str, ids: Sequence[int], answers: Sequence[tuple[str, Sequence[int]]], task: str,
        candidates: Sequence[int], gold: Sequence[int],
    ) -> None:
        """Add a row, its answers with their tokens."""
        if task not in self.tasks:
            self.tasks.append(task)
        self._tasks.append(self.tasks.index(task))
        self.questions.append(question)
        self.answers.append(tuple(text for text, _ in answers))
        self.question_ids.append(ids)
        self._answers_of.append([self._answer_ids.append(tokens) for _, tokens in answers])
        self.candidates.append(candidates)
        self.gold.append(gold)
        self.counts.kept += 1


def rows_from_files(
    files: Sequence[TaskFile], passages: PassageTable, options: RowOptions, *, progress: bool = False
) -> TrainingRows:
    """The rows of files in any layout that `answer` reads, with passages found or looked up in the table's source.

    A question that `answer` would not take is left out and counted, and so is one without an answer or passages.
    Raises QuestionFileError as `answer` does, also for a file that is named twice, and TrainingError for a file of
    which no row is left.
    """
    question_files([file.path for file in files])
    rows = TrainingRows(passages)
    read = [(file, path, read_questions(path)) for file in files for path in question_files(file.path)]
    what = "Looking passages up" if options.given else "Finding passages"
    with progress_bar(what, sum(len(found) for *_, found in read), unit="questions", shown=progress) as advance:
        for file, path, questions in read:
            before = replace(rows.counts, left_out=Counter(rows.counts.left_out))
            for question in questions:
                _take(rows, question, file.task or question.task or task_name(path), options)
                advance(1)
            if rows.counts.kept == before.kept:
                raise TrainingError(
                    f"rows {path}", expected="at least one question with an answer and passages",
                    found=str(rows.counts.since(before)), fix="give other rows, or passages that are relevant to them",
                )
    return rows


def _take(rows: TrainingRows, question: Question, task: str, options: RowOptions) -> None:
    """Add a question as a row, or count why not."""
    counts = rows.counts
    counts.read += 1
    if options.given:
        counts.skipped_passages += question.skipped
    if options.relevance == "provenance" and not has_provenance(question, options.threshold):
        counts.left_out[FILTERED] += 1
        return
    text, source = rows.passages.text, rows.passages.source
    try:
        ids = text.question(question.question)
        answers = _answers(question.answers, text, counts)
        if not answers:
            counts.left_out[NO_ANSWER] += 1
            return
        candidates = _candidates(question, source, options)
        gold = known_gold(question, candidates, source)
        for candidate in (*candidates, *gold) if text.joins else ():
            text.check_joined(question.question, candidate.passage.title, candidate.passage.text)
        places = [rows.passages.add(candidate) for candidate in candidates]
        gold_places = [rows.passages.add(candidate) for candidate in gold]
    except (QuestionError, PassageError) as error:
        counts.left_out[type(error).__name__] += 1
        return
    if not places:
        counts.left_out[NO_PASSAGE] += 1
        return
    if not {*places} & {*gold_places}:
        answering = [
            place for place, candidate in zip(places, candidates, strict=True)
            if has_answer(candidate.passage, question.answers)
        ]
        if options.relevance == "gold_or_answer" and not answering:
            counts.left_out[FILTERED] += 1
            return
        gold_places = gold_places or answering
    rows.append(question.question, ids, answers, task, places, gold_places)


def _candidates(question: Question, source: PassageSource | None, options: RowOptions) -> list[Candidate]:
    if options.given:
        return candidates_from_given(source, given_passages(question)[: options.num_retrieved])
    if source is None:
        raise OptionError(
            "rows", expected="a corpus or a store to find passages in", found="neither",
            fix="name one, or take the passages given with the questions",
        )
    return candidates_from_search(source, question.question, options.num_retrieved)


def _answers(answers: Iterable[str], text: RowText, counts: RowCounts) -> list[tuple[str, list[int]]]:
    """Each different answer that can be encoded, with its tokens."""
    found = []
    for answer in dict.fromkeys(answer.strip() for answer in answers if answer.strip()):
        try:
            found.append((answer, text.answer(answer)))
        except QuestionError:
            counts.answers += 1
    return found


def rows_from_world(world: World, text: RowText, *, task: str | None = None) -> TrainingRows:
    """The questions of a generated world with the whole of their contexts, as rows of one `task`, or of their own.

    They are what `rows_from_files` makes of the world's files with the passages given, but for places in the table,
    which are the passages' ids. Raises QuestionError for what cannot be encoded.
    """
    table = PassageTable(text)
    table.add_texts(Passage(row["id"], row["title"], row["text"]) for row in world.corpus)
    rows = TrainingRows(table)
    for question in world.questions:
        rows.append(
            question["question"], text.question(question["question"]),
            [(answer, text.answer(answer)) for answer in question["answers"]], task or question["task"],
            question["ctx_ids"], question["gold_ids"],
        )
    rows.counts.read = len(rows)
    return rows
