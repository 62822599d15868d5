"""Each question's figures: those of `answer`, and whether its gold passage was read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.answering.file import scored_rows
from glimmer_export.exporter.answering.scores import RECALL_AT, Scored
from glimmer_export.exporter.evaluation.passages import Asked
from glimmer_export.runtime import Answer, Passage

__all__ = ["FIGURES", "GOLD_IN_K", "GOLD_IN_M", "TITLES", "gold_among", "has_gold", "question_figures"]

ANSWERS = {"em": "exact match", "f1": "token F1", "accuracy": "accuracy", "rouge_l": "Rouge-L"}
GOLD_IN_M, GOLD_IN_K = "gold_in_m", "gold_in_k"
TITLES = {
    **ANSWERS,
    GOLD_IN_M: "gold in m", GOLD_IN_K: "gold in k",
    "r_precision": "R-precision", **{f"recall@{k}": f"recall@{k}" for k in RECALL_AT},
    **{f"kilt_{name}": f"KILT {title.removeprefix('token ')}" for name, title in ANSWERS.items()},
}  # fmt: skip
"""What a report calls each figure."""
FIGURES = tuple(TITLES)


def question_figures(
    asked: Sequence[Asked], answers: Sequence[Answer], *, names_pages: bool
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """The figures of one task's questions, (questions, FIGURES) float64 from 0 to 1, and what there are none of.

    NaN is what a question does not allow. Their means over the questions that allow them are what `answer` reports of
    the task.
    """
    scored, notes = scored_rows([item.question for item in asked], answers, names_pages=names_pages)
    with_evidence = any(row.names_evidence for row in scored)
    rows = []
    for item, answer, row in zip(asked, answers, scored, strict=True):
        found = _scores(row, with_evidence=with_evidence)
        passages = [candidate.passage for candidate in item.candidates[: len(answer.passages)]]
        read = [passages[place] for place in answer.selected]
        found[GOLD_IN_M] = gold_among(item.question, read, names_pages=names_pages)
        found[GOLD_IN_K] = gold_among(item.question, passages, names_pages=names_pages)
        rows.append([np.nan if found[name] is None else found[name] for name in FIGURES])
    return np.array(rows, np.float64).reshape(len(rows), len(FIGURES)), notes


def has_gold(question: Question, *, names_pages: bool) -> bool:
    """Whether it can be told if a question's gold passage is among others."""
    return bool(question.gold_ids) or (names_pages and bool(_named_sets(question)))


def gold_among(question: Question, passages: Sequence[Passage], *, names_pages: bool) -> float | None:
    """1.0 if a question's gold is among the passages, else 0.0; None if it names none that can be compared.

    If the row has `gold_ids`, a passage of one of these ids. Else, by KILT's provenance, passages of all the pages of
    one evidence set, whichever passages of those pages they are; `names_pages`: whether passages have pages.
    """
    if not has_gold(question, names_pages=names_pages):
        return None
    if question.gold_ids:
        return float(any(passage.id in question.gold_ids for passage in passages))
    pages = {passage.wikipedia_id for passage in passages}
    return float(any(wanted <= pages for wanted in _named_sets(question)))


def _named_sets(question: Question) -> list[set[str]]:
    """The evidence sets whose pages all have names: no other can be complete."""
    sets = [[page for page in pages if page is not None] for pages in question.evidence or () if None not in pages]
    return [{*pages} for pages in sets if pages]


def _scores(row: Scored, *, with_evidence: bool) -> dict[str, float | None]:
    found: dict[str, float | None] = {name: getattr(row, name) for name in ANSWERS}
    ranked = with_evidence and row.recall is not None
    found["r_precision"] = row.r_precision if ranked else None
    found |= dict(zip((f"recall@{k}" for k in RECALL_AT), row.recall or (), strict=False)) if ranked else {}
    for name in ANSWERS:
        value = found[name]
        counts = ranked and value is not None
        found[f"kilt_{name}"] = (value if row.r_precision == 1 else 0.0) if counts else None
    return {name: found.get(name) for name in FIGURES if name not in (GOLD_IN_M, GOLD_IN_K)}
