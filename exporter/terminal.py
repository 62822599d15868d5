"""What prints on a terminal: consoles, and text of others, which is printed as it stands."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from exporter.visible import visible

__all__ = ["console", "literal", "text"]


class _Console(Console):
    def render_str(self, text: str, **options: Any) -> Text:
        """Every string that is printed goes through here, so that none need be trusted."""
        return super().render_str("\n".join(map(visible, text.split("\n"))), **options)


def console(*, stderr: bool = False) -> Console:
    """The console of reports, or that of progress and warnings; `:cat:` is no picture on either."""
    return _Console(stderr=stderr, emoji=False)


def literal(value: object) -> str:
    """Anything for a line of markup, on one line: no markup of its own, nothing that a terminal obeys."""
    return escape(visible(str(value)))


def text(value: object) -> Text:
    """The same for what takes no markup, or reads it with a mind of its own: a bar's description, a status."""
    return Text(visible(str(value)))
