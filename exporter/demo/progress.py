"""The training's progress line: loss, EM and time left."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TextColumn

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.console import Console

    from glimmer_export.exporter.demo.training import Report

__all__ = ["progress_line"]

STEPS_PER_PLAIN_LINE = 50


@contextmanager
def progress_line(console: Console) -> Iterator[Callable[[Report], None]]:
    """Yield a function that shows a report: a live line on a terminal, else a line every hundred steps."""
    if not console.is_terminal:
        yield lambda report: _print_line(console, report)
        return
    with Progress(BarColumn(), TextColumn("{task.description}", markup=False), console=console) as progress:
        task = progress.add_task("starting", total=1.0)
        yield lambda report: progress.update(task, completed=report.fraction_done, description=_line(report))


def _print_line(console: Console, report: Report) -> None:
    if report.step % STEPS_PER_PLAIN_LINE == 0:
        console.print(_line(report), highlight=False, soft_wrap=True)


def _line(report: Report) -> str:
    minutes, seconds = divmod(round(report.seconds_left), 60)
    return (
        f"phase {report.phase + 1}/{report.num_phases} step {report.step:4d}  loss {report.loss:.3f}  "
        f"EM {report.exact_match:.3f}  at most {minutes}:{seconds:02d} left"
    )
