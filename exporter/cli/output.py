"""Printing: reports to stdout, progress to stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from exporter.finite_json import finite

__all__ = ["bold", "console", "print_json", "print_warnings", "question_progress", "tensor_progress"]


def console() -> Console:
    """The console of reports."""
    return Console()


def bold(path: Path) -> str:
    """A path for a line of markup, whatever characters it has."""
    return f"[bold]{escape(str(path))}[/bold]"


def print_json(value: Any) -> None:
    """A report as JSON on stdout, with NaN and infinity as null, which JSON has not.

    Where stdout's encoding lacks a character, all that are not ASCII are written as JSON's own escapes.
    """
    value = finite(value)
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2, allow_nan=False)
    sys.stdout.write(text + "\n")


def print_warnings(warnings: Iterable[str]) -> None:
    """A line of the report for each."""
    for warning in warnings:
        console().print(f"[yellow]warning[/yellow] {escape(warning)}")


@contextmanager
def question_progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, shown only on a terminal; yields what to call with the number done."""
    from exporter.memory.progress import progress_bar

    with progress_bar(description, total, shown=True) as advance:
        yield advance


@contextmanager
def tensor_progress() -> Iterator[Callable[[int, int], None]]:
    """A line on stderr, shown only on a terminal; yields what to call with the place of the tensor that comes next."""
    with Console(stderr=True).status("Reading the weights") as status:
        yield lambda index, count: status.update(f"Writing tensor {index + 1} of {count}")
