"""A file of questions through a session: predictions, KILT's scores and time."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from glimmer_export.calibration.questions import Question, given_passages
from glimmer_export.exporter.answering.scores import (
    RougeL,
    Scored,
    Scores,
    named_scores,
    rouge_l_scorer,
    score_row,
    scores_of,
    scores_of_tasks,
    scores_table,
)
from glimmer_export.exporter.files.publish import check_file, replace_file
from glimmer_export.exporter.report.tables import print_table
from glimmer_export.exporter.report.visible import visible
from glimmer_export.runtime import Answer, BackendChoice, Passage, Session
from glimmer_export.runtime.contract import QuestionFileError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "AnsweringReport", "answer_questions", "check_ids", "choice_to_json", "kilt_predictions", "ranked_pages",
    "scored_rows",
]  # fmt: skip


def kilt_predictions(questions: Sequence[Question], answers: Sequence[Answer]) -> str:
    """The content of a file of predictions, one KILT row a question; an answer that is None becomes an empty one.

    KILT's script reads `answer` and `provenance`; `log_probability` stands beside them, null if it is not known.
    """
    return "".join(
        json.dumps({"id": question.qid, "input": question.question, "output": [_output(answer)]}) + "\n"
        for question, answer in zip(questions, answers, strict=True)
    )


def ranked_pages(answer: Answer) -> list[Passage]:
    """The best passage of each Wikipedia page, best first: by the model's scores, or as retrieved if it has none.

    Those that were not read are among them, and those that name no page are not.
    """
    passages = list(answer.passages)
    if all(item.score is not None for item in passages):
        passages.sort(key=lambda item: -(item.score or 0.0))
    best: dict[str, Passage] = {}
    for item in passages:
        if item.passage.wikipedia_id is not None:
            best.setdefault(item.passage.wikipedia_id, item.passage)
    return list(best.values())


def check_ids(questions: Sequence[Question]) -> None:
    """Raise QuestionFileError if two questions have one id, read as strings: KILT's script refuses them."""
    first: dict[str, Question] = {}
    for question in questions:
        earlier = first.setdefault(question.qid.strip(), question)
        if earlier is not question:
            raise QuestionFileError(
                f"question {question.question[:60]!r}", expected="an id of its own, to name its prediction by",
                found=f"{question.qid!r}, the id of {earlier.question[:60]!r}", fix="rename one of the two",
            )


def _output(answer: Answer) -> dict[str, object]:
    provenance = [{"wikipedia_id": page.wikipedia_id, "title": page.title} for page in ranked_pages(answer)]
    return {"answer": answer.answer or "", "log_probability": answer.log_probability, "provenance": provenance}


@dataclass(frozen=True)
class AnsweringReport:
    """What came of a file of questions.

    `backend` is the session's choice, None if its graphs were given; `errors` counts the questions that could not be
    taken, by the error's name; `milliseconds` is the median over batches, by stage. `tasks` has the scores of each task
    that rows name; `notes` says what could not be measured, and why. `skipped_passages` counts the given passages that
    had no text, `truncated_passages` those that were longer than passage_length and were cut.
    """

    backend: BackendChoice | None
    questions: int
    errors: dict[str, int]
    scores: Scores
    tasks: dict[str, Scores]
    notes: tuple[str, ...]
    milliseconds: dict[str, float]
    answers: tuple[Answer, ...]
    skipped_passages: int = 0
    truncated_passages: int = 0

    @property
    def unretrieved(self) -> int:
        """Questions that could be taken, but for which no passage was found: they have no answer."""
        return sum(answer.error is None and not answer.passages for answer in self.answers)

    @property
    def decoder_runs(self) -> int:
        """Runs of the decoder, of every answer until its end."""
        return sum(answer.decoder_runs for answer in self.answers)

    @property
    def passages_read(self) -> float | None:
        """Passages that the decoder read for a question, their mean over those answered; None if none was."""
        counts = [len(answer.selected) for answer in self.answers if answer.answer is not None]
        return fmean(counts) if counts else None

    @property
    def em(self) -> float | None:
        """Exact match over all rows that have a gold."""
        return self.scores.em

    @property
    def f1(self) -> float | None:
        """F1 of words over all rows that have a gold."""
        return self.scores.f1

    def to_json(self) -> dict[str, Any]:
        """The report with one entry an answer; the scores of all rows stand beside the rest."""
        return {
            "backend": None if self.backend is None else choice_to_json(self.backend),
            "questions": self.questions,
            "errors": self.errors,
            "unretrieved": self.unretrieved,
            "skipped_passages": self.skipped_passages,
            "truncated_passages": self.truncated_passages,
            "passages_read": self.passages_read,
            **self.scores.to_json(),
            "tasks": {task: scores.to_json() for task, scores in self.tasks.items()},
            "notes": list(self.notes),
            "decoder_runs": self.decoder_runs,
            "milliseconds": self.milliseconds,
            "answers": [answer.to_dict() for answer in self.answers],
        }

    def print(self, console: Console) -> None:
        """A short table."""
        from rich.table import Table

        table = Table(show_header=False)
        if self.backend is not None:
            table.add_row("backend", self.backend.name)
            for note in self.backend.notes:
                table.add_row("", visible(note))
        table.add_row("questions", str(self.questions))
        for name, count in self.errors.items():
            table.add_row(f"not taken, {name}", str(count))
        if self.unretrieved:
            table.add_row("no passage found", str(self.unretrieved))
        if self.skipped_passages:
            table.add_row("passages skipped, without text", str(self.skipped_passages))
        if self.truncated_passages:
            table.add_row("passages cut to passage_length", str(self.truncated_passages))
        if self.passages_read is not None:
            table.add_row("passages read, a question", f"{self.passages_read:.2f}")
        if self.scores.graded not in (0, self.questions):
            table.add_row("graded, for having answers", str(self.scores.graded))
        for name, score in named_scores(self.scores):
            table.add_row(name, "not measured: no row has answers" if score == "-" else score)
        table.add_row("decoder runs", str(self.decoder_runs))
        for stage, value in self.milliseconds.items():
            table.add_row(f"{stage}, ms a batch", f"{value:.1f}")
        console.print(table)
        if self.tasks:
            print_table(scores_table(self.tasks), console)
        for note in self.notes:
            console.print(visible(note))


def answer_questions(
    session: Session,
    questions: Sequence[Question],
    *,
    given: bool = False,
    predictions: Path | None = None,
    top_k: int | None = None,
    top_m: int | None = None,
    mass: float | None = None,
    batch_size: int = 8,
    inputs: Sequence[Path | None] = (),
    advance: Callable[[int], None] = lambda _: None,
) -> AnsweringReport:
    """Answer every question in batches; one that cannot be taken is counted and left unanswered.

    Raises what answering raises. Before anything is answered: OutputError where predictions cannot be written or would
    replace what is read (the session's bundle and store, and `inputs`), and QuestionFileError where two questions of
    them have one id.
    """
    if predictions is not None:
        store = None if session.store is None else session.store.directory
        predictions = check_file(predictions, [session.bundle.directory, store, *inputs])
        check_ids(questions)
    answers: list[Answer] = []
    batches: list[dict[str, float]] = []
    for start in range(0, len(questions), batch_size):
        batch = questions[start : start + batch_size]
        passages = [given_passages(question) for question in batch] if given else None
        found = session.answer_many([row.question for row in batch], top_k, top_m, mass=mass, passages=passages)
        answers.extend(found)
        batches.append(found[0].milliseconds)
        advance(len(batch))
    if predictions is not None:
        replace_file(predictions, kilt_predictions(questions, answers).encode())
    store_names_pages = session.store is not None and session.store.names_pages
    rows, notes = scored_rows(questions, answers, names_pages=store_names_pages)
    return AnsweringReport(
        backend=session.backend_choice,
        questions=len(questions),
        errors=dict(Counter(type(answer.error).__name__ for answer in answers if answer.error is not None)),
        scores=scores_of(rows),
        tasks=scores_of_tasks(rows),
        notes=notes,
        milliseconds={
            stage: median(times.get(stage, 0.0) for times in batches)
            for stage in dict.fromkeys(stage for times in batches for stage in times)
        },
        answers=tuple(answers),
        skipped_passages=sum(row.skipped for row in questions) if given else 0,
        truncated_passages=sum(passage.truncated for answer in answers for passage in answer.passages),
    )


def scored_rows(
    questions: Sequence[Question], answers: Sequence[Answer], *, names_pages: bool
) -> tuple[list[Scored], tuple[str, ...]]:
    """Every row's figures, and what there are none of.

    `names_pages`: whether passages of what was searched may have pages, those of the answers apart.
    """
    notes = []
    rouge_l = rouge_l_scorer()
    if rouge_l is None and any(row.answers for row in questions):
        notes.append("Rouge-L is not measured: pip install 'glimmer-export[kilt]'")
    pages = [[page.wikipedia_id or "" for page in ranked_pages(answer)] for answer in answers]
    names_pages = names_pages or any(pages)
    given = list(zip(questions, answers, pages, strict=True))

    def scored(rouge_l: RougeL | None) -> list[Scored]:
        return [
            score_row(row, answer.answer, named, names_pages=names_pages, rouge_l=rouge_l)
            for row, answer, named in given
        ]

    try:
        rows = scored(rouge_l)
    except RecursionError:
        notes.append("Rouge-L is not measured: an answer has a sentence of more words than the package `rouge` takes")
        rows = scored(None)
    if not names_pages and any(row.names_evidence for row in rows):
        notes.append('Retrieval is not measured: no passage has a "wikipedia_id"')
    return rows, tuple(notes)


def choice_to_json(choice: BackendChoice) -> dict[str, Any]:
    """What ran the graphs, why nothing better did, and what of it was slower than it might be."""
    return {
        "name": choice.name, "compute_precision": choice.compute_precision, "refused": dict(choice.refused),
        "notes": list(choice.notes),
    }
