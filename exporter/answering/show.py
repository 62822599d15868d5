"""Scores as they are printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from glimmer_export.exporter.answering.scores import Scores
from glimmer_export.exporter.visible import visible

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["named_scores", "scores_table"]

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


def scores_table(tasks: Mapping[str, Scores]) -> Table:
    """A line a score, a column a task: one task has more scores than a terminal has room for columns."""
    from rich.table import Table

    shown = {task: dict(named_scores(scores)) for task, scores in tasks.items()}
    names = list(dict.fromkeys(name for scores in shown.values() for name in scores))
    table = Table("task")
    for task in shown:
        table.add_column(visible(task), justify="right", overflow="fold")
    table.add_row("graded", *(str(scores.graded) for scores in tasks.values()))
    for name in names:
        table.add_row(name, *(scores.get(name, "-") for scores in shown.values()))
    return table
