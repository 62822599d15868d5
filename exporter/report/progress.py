"""Progress bars on stderr, shown only on a terminal: how much is done, how fast, and the time that is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from glimmer_export.exporter.report.visible import visible

__all__ = ["progress_bar", "step_bar"]


@contextmanager
def progress_bar(
    description: str, total: int, *, unit: str = "passages", shown: bool = True
) -> Iterator[Callable[[int], None]]:
    """Yield what to call with the number of `unit` that came to be done."""
    if not shown:
        yield lambda _: None
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    from glimmer_export.exporter.report.terminal import console

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.1f} {unit}/s")

    stderr = console(stderr=True)
    label = TextColumn("{task.description}", markup=False)
    columns = (label, BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal) as progress:
        task = progress.add_task(visible(description), total=total)
        yield lambda count: progress.advance(task, count)


@contextmanager
def step_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Yield what to call with what is being done, how much of it is done, and of how much; gone at the end."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from glimmer_export.exporter.report.terminal import console

    stderr = console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr, disable=not stderr.is_terminal, transient=True) as progress:
        task = progress.add_task("Starting", total=None)
        yield lambda what, done, of: progress.update(task, description=visible(what), completed=done, total=of)
