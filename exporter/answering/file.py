"""A file of questions through a session: predictions, exact match, F1 and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from calibration.questions import Question, given_passages, kilt_predictions
from exporter.answering.metrics import grade
from exporter.publish import check_file, replace_file
from runtime import Answer, BackendChoice, Session

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["AnsweringReport", "answer_questions", "answer_to_json", "choice_to_json"]


@dataclass(frozen=True)
class AnsweringReport:
    """What came of a file of questions.

    `backend` is the session's choice, None where its graphs were given; `errors` counts the questions that could not be
    taken, by the error's name; `milliseconds` is the median over batches, by stage. `em` and `f1` run from 0 to 1, None
    where no row had answers.
    """

    backend: BackendChoice | None
    questions: int
    errors: dict[str, int]
    em: float | None
    f1: float | None
    milliseconds: dict[str, float]
    answers: tuple[Answer, ...]

    def to_json(self) -> dict[str, Any]:
        """The report with one entry an answer."""
        values = {name: getattr(self, name) for name in ("questions", "errors", "em", "f1", "milliseconds")}
        backend = None if self.backend is None else choice_to_json(self.backend)
        return {"backend": backend, **values, "answers": [answer_to_json(answer) for answer in self.answers]}

    def print(self, console: Console) -> None:
        """A short table."""
        from rich.table import Table

        table = Table(show_header=False)
        if self.backend is not None:
            table.add_row("backend", self.backend.name)
        table.add_row("questions", str(self.questions))
        for name, count in self.errors.items():
            table.add_row(f"not taken, {name}", str(count))
        for name, value in (("exact match", self.em), ("token F1", self.f1)):
            table.add_row(name, "-" if value is None else f"{value:.4f}")
        for stage, value in self.milliseconds.items():
            table.add_row(f"{stage}, ms a batch", f"{value:.1f}")
        console.print(table)


def answer_questions(
    session: Session,
    questions: Sequence[Question],
    *,
    given: bool = False,
    predictions: Path | None = None,
    top_k: int | None = None,
    top_m: int | None = None,
    batch_size: int = 8,
    advance: Callable[[int], None] = lambda _: None,
) -> AnsweringReport:
    """Answer every question in batches; one that cannot be taken is counted and left unanswered.

    Raises what answering raises, and OutputError, before anything is answered, where predictions cannot be written.
    """
    if predictions is not None:
        check_file(predictions)
    answers: list[Answer] = []
    batches: list[dict[str, float]] = []
    for start in range(0, len(questions), batch_size):
        batch = questions[start : start + batch_size]
        passages = [given_passages(question) for question in batch] if given else None
        found = session.answer_many([row.question for row in batch], top_k, top_m, passages=passages)
        answers.extend(found)
        batches.append(found[0].milliseconds)
        advance(len(batch))
    if predictions is not None:
        replace_file(predictions, kilt_predictions(questions, [answer.answer for answer in answers]).encode())
    graded = [
        one for row, answer in zip(questions, answers, strict=True)
        if (one := grade(answer.answer, row.answers)) is not None
    ]
    return AnsweringReport(
        backend=session.backend_choice,
        questions=len(questions),
        errors=dict(Counter(type(answer.error).__name__ for answer in answers if answer.error is not None)),
        em=fmean(one.em for one in graded) if graded else None,
        f1=fmean(one.f1 for one in graded) if graded else None,
        milliseconds={
            stage: median(times.get(stage, 0.0) for times in batches)
            for stage in dict.fromkeys(stage for times in batches for stage in times)
        },
        answers=tuple(answers),
    )


def choice_to_json(choice: BackendChoice) -> dict[str, Any]:
    """What ran the graphs, and why nothing better did."""
    return {"name": choice.name, "refused": dict(choice.refused)}


def answer_to_json(answer: Answer) -> dict[str, Any]:
    """One answer with its passages."""
    return {
        "question": answer.question,
        "answer": answer.answer,
        "token_ids": list(answer.token_ids),
        "error": None if answer.error is None else f"{type(answer.error).__name__}: {answer.error}",
        "passages": [
            {
                "rank": rank,
                "id": item.passage.id,
                "title": item.passage.title,
                "retrieval_score": item.retrieval_score,
                "score": item.score,
                "read": item.read,
            }
            for rank, item in enumerate(answer.passages, start=1)
        ],
        "milliseconds": answer.milliseconds,
    }
