"""A table of a report, once for the terminal and for a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Bar", "Cell", "ReportTable", "Verdict", "print_table", "times_faster"]


@dataclass(frozen=True)
class Bar:
    """A share from 0 to 1 as a length, which a page alone draws; `kind` chooses the colour."""

    share: float
    kind: str = "ours"

    @property
    def percent(self) -> str:
        """The length as CSS has it."""
        return f"{100 * max(self.share, 0.0):.2f}%"


@dataclass(frozen=True)
class Verdict:
    """A word that is good news or bad."""

    word: str
    good: bool


Cell = str | Bar | Verdict


@dataclass(frozen=True)
class ReportTable:
    """Rows under their columns; the first column is text, the others are figures. `note` stands below."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[Sequence[Cell]]
    note: str = ""


def print_table(table: ReportTable, console: Console) -> None:
    """Print all but the bars."""
    from rich.table import Table

    from glimmer_export.exporter.report.visible import visible

    drawn = {place for row in table.rows for place, cell in enumerate(row) if isinstance(cell, Bar)}
    shown = Table(title=visible(table.title) or None, caption=visible(table.note) or None)
    for place, column in enumerate(table.columns):
        if place not in drawn:
            shown.add_column(visible(column), justify="right" if place else "left", overflow="fold")
    for row in table.rows:
        words = (cell.word if isinstance(cell, Verdict) else str(cell) for cell in row)
        shown.add_row(*(visible(word) for place, word in enumerate(words) if place not in drawn))
    console.print(shown)


def times_faster(ratio: float) -> str:
    """A time `ratio` times shorter than another, in words: "1.88x faster", or "1.88x the time" if `ratio` is 0.53."""
    if not 0 < ratio < float("inf"):
        return "-"
    shown = max(ratio, 1 / ratio)
    if f"{shown:.2f}" == "1.00":
        return "the same time"
    return f"{shown:.2f}x faster" if ratio > 1 else f"{shown:.2f}x the time"
