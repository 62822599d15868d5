"""What prints on a terminal. Every string is text: there is no markup, `:cat:` is no picture, and nothing is obeyed."""

from __future__ import annotations

import threading
from typing import Any

from rich.console import Console
from rich.text import Text

from glimmer_export.exporter.report.visible import visible, visible_lines

__all__ = ["be_quiet", "bold", "console", "text"]

QUIET = threading.Event()
"""Set by `be_quiet`, for the process: a command has one standard error."""


class _Console(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        """A string as Text: each that is printed goes through here, cells and titles of tables too."""
        return super().render_str(visible_lines(text), **options)


def console(*, stderr: bool = False) -> Console:
    """The console of reports, or that of progress and warnings, which may be told to be quiet."""
    return _Console(stderr=stderr, markup=False, emoji=False, quiet=stderr and QUIET.is_set())


def be_quiet() -> None:
    """Show no progress and no remarks on standard error from now on; errors are printed all the same."""
    QUIET.set()


def text(value: object, style: str = "") -> Text:
    """Anything on one line, in a style; also for a status, which would read a string as markup."""
    return Text(visible(str(value)), style)


def bold(value: object) -> Text:
    """What a line is about, such as a path."""
    return text(value, "bold")
