"""What a file of questions scores, in the figures of KILT's script."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.answering.metrics import grade
from glimmer_export.exporter.answering.retrieved_pages import r_precision, recall_at
from glimmer_export.exporter.answering.rouge_l import RougeL

__all__ = ["RECALL_AT", "Scored", "Scores", "score_row", "scores_of", "scores_of_tasks"]

RECALL_AT = (5, 10, 20)


@dataclass(frozen=True)
class Scored:
    """One row's figures, from 0.0 to 1.0; None where the row or the passages do not allow one.

    `recall` is by RECALL_AT. `names_evidence` says whether its gold names a page at all.
    """

    task: str | None
    em: float | None
    f1: float | None
    accuracy: float | None
    rouge_l: float | None
    r_precision: float | None
    recall: tuple[float, ...] | None
    names_evidence: bool


@dataclass(frozen=True)
class Scores:
    """Means over rows, from 0.0 to 1.0. None where no row allows one.

    The answers' over the `graded` rows, which have a gold. Retrieval's over all rows in KILT's format, where some gold
    names a page and the passages have pages. A `kilt_` figure counts an answer only where R-precision is 1.
    """

    graded: int
    em: float | None
    f1: float | None
    accuracy: float | None
    rouge_l: float | None
    r_precision: float | None
    recall: Mapping[int, float] | None
    kilt_em: float | None
    kilt_f1: float | None
    kilt_accuracy: float | None
    kilt_rouge_l: float | None

    def to_json(self) -> dict[str, Any]:
        """Plain numbers; `recall` by k."""
        recall = None if self.recall is None else {str(k): value for k, value in self.recall.items()}
        return {**asdict(self), "recall": recall}


def score_row(
    question: Question, answer: str | None, pages: Sequence[str], *, names_pages: bool, rouge_l: RougeL | None
) -> Scored:
    """The figures of one answer and of the pages found for it, best first, each once.

    `names_pages`: whether the passages that were searched have pages. Raises RecursionError as the scorer does.
    """
    given, evidence = grade(answer, question.answers), question.evidence
    ranked = names_pages and evidence is not None
    return Scored(
        task=question.task,
        em=None if given is None else given.em,
        f1=None if given is None else given.f1,
        accuracy=None if given is None else given.accuracy,
        rouge_l=None if given is None or rouge_l is None else rouge_l(answer, question.answers),
        r_precision=r_precision(pages, evidence or ()) if ranked else None,
        recall=tuple(recall_at(k, pages, evidence or ()) for k in RECALL_AT) if ranked else None,
        names_evidence=any(page is not None for pages_of_set in evidence or () for page in pages_of_set),
    )


def scores_of(rows: Sequence[Scored]) -> Scores:
    """The means."""
    graded = [row for row in rows if row.em is not None]
    ranked = [row for row in rows if row.recall is not None]
    if not any(row.names_evidence for row in ranked):
        ranked = []
    both = [row for row in ranked if row.em is not None]

    def kilt(name: str) -> float | None:
        return _mean([getattr(row, name) if row.r_precision == 1 else _zero(getattr(row, name)) for row in both])

    answers = {name: _mean([getattr(row, name) for row in graded]) for name in ("em", "f1", "accuracy", "rouge_l")}
    recall = {k: _mean([row.recall[place] for row in ranked if row.recall]) for place, k in enumerate(RECALL_AT)}
    return Scores(
        graded=len(graded), **answers, r_precision=_mean([row.r_precision for row in ranked]),
        recall={k: value for k, value in recall.items() if value is not None} or None,
        kilt_em=kilt("em"), kilt_f1=kilt("f1"), kilt_accuracy=kilt("accuracy"), kilt_rouge_l=kilt("rouge_l"),
    )


def scores_of_tasks(rows: Sequence[Scored]) -> dict[str, Scores]:
    """The means of each task, by its name; none where rows name no task."""
    tasks: dict[str, list[Scored]] = defaultdict(list)
    for row in rows:
        if row.task is not None:
            tasks[row.task].append(row)
    return {task: scores_of(of_task) for task, of_task in sorted(tasks.items())}


def _zero(value: float | None) -> float | None:
    return None if value is None else 0.0


def _mean(values: Sequence[float | None]) -> float | None:
    """None of nothing, and where one of them was not measured."""
    known = [value for value in values if value is not None]
    return fmean(known) if known and len(known) == len(values) else None
