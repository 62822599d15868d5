"""What a file of questions scores, in the figures of KILT's script."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

from glimmer_export.calibration.public_fields import Evidence
from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.answering.metrics import gold_answers, grade
from glimmer_export.exporter.report.tables import ReportTable

__all__ = [
    "RougeL", "Scored", "Scores", "named_scores", "r_precision", "recall_at", "rouge_l_scorer", "score_row",
    "scores_of", "scores_of_tasks", "scores_table",
]  # fmt: skip


def r_precision(pages: Sequence[str], evidence: Sequence[Evidence]) -> float:
    """How much of an evidence set stands among as many of the first pages as it has; of the set that does best.

    `pages` are those of the retrieved passages, best first, each once. 0.0 without evidence.
    """
    named = [{page for page in pages_of_set if page is not None} for pages_of_set in evidence]
    shares = (len(wanted.intersection(pages[: len(wanted)])) / len(wanted) for wanted in named if wanted)
    return max(shares, default=0.0)


def recall_at(k: int, pages: Sequence[str], evidence: Sequence[Evidence]) -> float:
    """The share of the evidence sets, equal ones counted once, that are complete among the first `k` of the ranking.

    The ranking is that of KILT: an evidence set stands in it once, where the last of its pages was found, in place of
    those pages; a page of no set stands for itself. A set with a page that has no name is never complete.
    """
    sets = list(dict.fromkeys(frozenset(page or "" for page in pages_of_set) for pages_of_set in evidence))
    if not sets or not pages:
        return 0.0
    places = {page: place for place, page in enumerate(pages)}
    found = [[places[page] for page in wanted if page in places] for wanted in sets]
    # One entry for each set of which something was found, and one for each page that belongs to none.
    ranking = [(max(at), len(at) == len(wanted)) for wanted, at in zip(sets, found, strict=True) if at]
    wanted_pages = frozenset().union(*sets)
    ranking += [(place, False) for page, place in places.items() if page not in wanted_pages]
    # The sets that end at the same page keep their order.
    ranking.sort(key=lambda entry: entry[0])
    return sum(complete for _, complete in ranking[:k]) / len(sets)


RougeL = Callable[[str | None, Iterable[str]], float]
"""(prediction, answers) -> the F-measure of the gold that fits best, from 0.0 to 1.0; text is taken as it stands."""


def rouge_l_scorer() -> RougeL | None:
    """What scores an answer; None if the package `rouge` is not installed.

    The scorer raises RecursionError for texts with about a thousand words in one sentence, as the package does.
    """
    try:
        from rouge import Rouge
    except ModuleNotFoundError:
        return None
    rouge = Rouge(metrics=["rouge-l"], stats=["f"])

    def score(prediction: str | None, answers: Iterable[str]) -> float:
        text = (prediction or "").strip()
        return max((_score(rouge, text, gold) for gold in gold_answers(answers)), default=0.0) if text else 0.0

    return score


def _score(rouge: Any, text: str, gold: str) -> float:
    try:
        scores = rouge.get_scores(text, gold, avg=True)
    except ValueError:  # nothing but full stops
        return 0.0
    return float(scores["rouge-l"]["f"])


RECALL_AT = (5, 10, 20)


@dataclass(frozen=True)
class Scored:
    """One row's figures, from 0.0 to 1.0; None if the row or the passages do not allow one.

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
    """Means over rows, from 0.0 to 1.0. None if no row allows one.

    The answers' over the `graded` rows, which have a gold. Retrieval's over all rows in KILT's format, where some gold
    names a page and the passages have pages. A `kilt_` figure counts an answer only if R-precision is 1.
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
    """The means of each task, by its name; none if rows name no task."""
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


ALWAYS = ("exact match", "token F1")


def named_scores(scores: Scores) -> list[tuple[str, str]]:
    """Each score with its name: those that were measured, and of the others exact match and F1, as a dash."""
    values = [
        ("exact match", scores.em), ("token F1", scores.f1), ("accuracy", scores.accuracy), ("Rouge-L", scores.rouge_l),
        ("R-precision", scores.r_precision),
        *((f"recall@{k}", value) for k, value in (scores.recall or {}).items()),
        ("KILT exact match", scores.kilt_em), ("KILT F1", scores.kilt_f1), ("KILT accuracy", scores.kilt_accuracy),
        ("KILT Rouge-L", scores.kilt_rouge_l),
    ]
    shown = ((name, value) for name, value in values if value is not None or name in ALWAYS)
    return [(name, "-" if value is None else f"{value:.4f}") for name, value in shown]


def scores_table(tasks: Mapping[str, Scores]) -> ReportTable:
    """A line a score, a column a task: one task has more scores than a terminal has room for columns."""
    shown = {task: dict(named_scores(scores)) for task, scores in tasks.items()}
    names = list(dict.fromkeys(name for scores in shown.values() for name in scores))
    rows = [("graded", *(str(scores.graded) for scores in tasks.values()))]
    rows += [(name, *(scores.get(name, "-") for scores in shown.values())) for name in names]
    return ReportTable("", ("task", *shown), rows)
