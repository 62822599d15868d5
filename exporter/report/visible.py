"""Text that may be shown and written: what a terminal would obey is escaped, and what JSON lacks becomes null."""

from __future__ import annotations

import json
import math
import re
from typing import Any

__all__ = ["finite", "visible", "visible_json", "visible_lines"]

OBEYED = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # C0, DEL and C1: the beginnings of escape sequences, and line breaks
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # what turns the direction of what follows
    "\u2028\u2029"  # line breaks
    "\u200b\u2060-\u2065\u206a-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"  # what has no form of its own
    "\ud800-\udfff"  # bytes of file names that are not UTF-8, and halves of characters
    "]"
)  # fmt: skip


def visible(text: str) -> str:
    r"""The text on one line, with `\x1b` and the like for the characters that a terminal obeys or does not show."""
    return OBEYED.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def visible_lines(text: str) -> str:
    """The same of every line of a text that has several."""
    return "\n".join(map(visible, text.split("\n")))


def visible_json(text: str) -> str:
    r"""JSON of the same meaning, with `\u009b` and the like for those characters: line breaks are JSON's own."""
    return OBEYED.sub(lambda found: found[0] if found[0] == "\n" else json.dumps(found[0])[1:-1], text)


def finite(value: Any) -> Any:
    """A copy of nested dicts, lists and tuples with None for every float that is not finite."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
