"""Printing: reports to stdout, progress to stderr."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import Enum
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.report.terminal import bold, console, text
from glimmer_export.exporter.report.visible import finite, visible, visible_json

if TYPE_CHECKING:
    import typer

__all__ = [
    "bold", "command_line", "console", "print_json", "print_notes", "print_warnings", "question_progress",
    "tensor_progress",
]  # fmt: skip


def print_json(value: Any) -> None:
    """A report as JSON on stdout, with NaN and infinity, which JSON does not have, as null.

    What a terminal would obey is written as JSON's own escapes, and where stdout's encoding lacks a character, all that
    are not ASCII are.
    """
    value = finite(value)
    printed = visible_json(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))
    try:
        printed.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        printed = json.dumps(value, indent=2, allow_nan=False)
    sys.stdout.write(printed + "\n")


def print_warnings(warnings: Iterable[str]) -> None:
    """A line of the report for each."""
    for warning in warnings:
        console().print(text("warning", "yellow"), visible(warning))


def print_notes(notes: Iterable[str]) -> None:
    """A line of the report for each."""
    for note in notes:
        console().print(text("note", "yellow"), visible(note))


def command_line(context: typer.Context) -> str:
    """The command that is being run, with the options that were given and no others."""
    names, step = [context.info_name], context.parent
    while step is not None and step.parent is not None:
        names.insert(0, step.info_name)
        step = step.parent
    words = ["glimmer-export", *map(str, names)]
    for parameter in context.command.params:
        value = context.params.get(str(parameter.name))
        source = context.get_parameter_source(str(parameter.name))
        if value is None or source is None or source.name != "COMMANDLINE":
            continue
        values = [item.value if isinstance(item, Enum) else item for item in _as_list(value)]
        if parameter.param_type_name == "argument":
            words += map(str, values)
        elif isinstance(value, bool):
            words.append(parameter.opts[0] if value else parameter.secondary_opts[0])
        else:
            words += [word for item in values for word in (parameter.opts[0], str(item))]
    return shlex.join(words)


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]


@contextmanager
def question_progress(description: str, total: int) -> Iterator[Callable[[int], None]]:
    """A progress bar on stderr, shown only on a terminal; yields what to call with the number done."""
    from glimmer_export.exporter.report.progress import progress_bar

    with progress_bar(description, total, unit="questions") as advance:
        yield advance


@contextmanager
def tensor_progress() -> Iterator[Callable[[int, int], None]]:
    """A line on stderr, shown only on a terminal; yields what to call with the place of the tensor that comes next."""
    with console(stderr=True).status("Reading the weights") as status:
        yield lambda index, count: status.update(f"Writing tensor {index + 1} of {count}")
