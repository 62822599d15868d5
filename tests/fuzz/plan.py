"""Which cases are run."""

from __future__ import annotations

from collections.abc import Iterable

from tests.fuzz.case import Case
from tests.fuzz.targets import TARGETS

__all__ = ["cases"]


def cases(count: int, names: Iterable[str], *, first: int = 0) -> list[Case]:
    """So many cases of these targets, by their weights, and at least one of each; seeds begin at `first`."""
    chosen = [TARGETS[name] for name in names]
    total = sum(target.weight for target in chosen)
    return [
        Case(target.name, first + number)
        for target in chosen for number in range(max(1, round(count * target.weight / total)))
    ]
