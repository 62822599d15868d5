"""Which neighbours of a growing row of parts are merged, so that there are few and each is written few times.

As in a log-structured merge tree: a part's level is the logarithm of its size, and of one level at the end of the row
there are fewer than a factor. What was added in n steps of one size lies in O(log n) parts, and was written O(log n)
times; but for those that are full.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["FACTOR", "SEGMENT_FACTOR", "is_full", "small_runs", "to_merge"]

FACTOR = 8
SEGMENT_FACTOR = 2
"""Of segments: each costs every question some 5 to 10 us, so that fewer are worth writing texts once more."""


def to_merge(sizes: Sequence[int], most: int, factor: int | None = None) -> list[range]:
    """Runs of places, of two or more, each to be merged into one part of at most `most`; they rise, and are apart.

    The last of the sizes was added just now. A part that is full stays, and what stands before it. `factor` None is
    FACTOR.
    """
    factor = factor or FACTOR
    parts = [(size, place, place + 1) for place, size in enumerate(sizes)]
    level = 0
    while level <= _level(most, factor):
        start = len(parts)
        while start and _level(parts[start - 1][0], factor) <= level and not is_full(parts[start - 1][0], most):
            start -= 1
        tail = parts[start:]
        same = sum(_level(size, factor) == level for size, _, _ in tail)
        if same >= factor and (merged := _merged(tail, most)) != tail:
            parts[start:] = merged
        else:
            level += 1
    return [range(start, stop) for _, start, stop in parts if stop - start > 1]


def small_runs(sizes: Sequence[int], most: int) -> list[range]:
    """Runs of neighbours, of two or more, that are not full and fit into one part of at most `most` together."""
    runs: list[range] = []
    start = total = 0
    for place, size in enumerate([*sizes, most]):
        if is_full(size, most) or total + size > most:
            if place - start > 1:
                runs.append(range(start, place))
            start, total = (place + 1, 0) if is_full(size, most) else (place, size)
        else:
            total += size
    return runs


def is_full(size: int, most: int) -> bool:
    """Whether a part is too large to be merged with one of its size."""
    return 2 * size > most


def _merged(parts: list[tuple[int, int, int]], most: int) -> list[tuple[int, int, int]]:
    """The parts, as many of them together as are at most `most`; the last ones only if all are one then."""
    groups: list[tuple[int, int, int]] = []
    first = 0
    for place, (size, start, stop) in enumerate(parts):
        if groups and groups[-1][0] + size <= most:
            groups[-1] = groups[-1][0] + size, groups[-1][1], stop
        else:
            groups.append((size, start, stop))
            first = place
    return groups if len(groups) == 1 else [*groups[:-1], *parts[first:]]


def _level(size: int, factor: int) -> int:
    level = 0
    while size >= factor:
        size //= factor
        level += 1
    return level
