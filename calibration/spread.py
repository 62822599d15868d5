"""Which n of N things stand for all of them: of questions, passages or rows, wherever only some can be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

__all__ = ["spread"]

T = TypeVar("T")


def spread(items: Sequence[T], limit: int) -> list[T]:
    """At most `limit` of the items, in even steps from the first to the last.

    Files are often sorted, by topic, task or date: what takes the first n, or steps that are rounded down, never sees
    the end of them.
    """
    if len(items) <= limit:
        return list(items)
    return [items[place * (len(items) - 1) // max(1, limit - 1)] for place in range(limit)]
