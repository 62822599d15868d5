"""Which neighbours of a growing row of parts are merged, so that there are few and each is written few times.

So many small parts may stand at the end of a row. When there is one more, the last of them become one: from the part on
that has most behind it for its size, so that what is large is written again only once as much has come behind it. In n
steps of one size each passage is then written parts / e * n^(1 / parts) times at most, or nearly, as by the binomial
transform (Bentley and Saxe 1980): 10 times where four parts take 1,440 steps, 3.6 times where 16 do. Where parts of
like size were merged by a factor, more of them stood for as many bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["PARTS", "SEGMENT_PARTS", "is_full", "merged_from", "small_runs"]

PARTS = 16
SEGMENT_PARTS = 4
"""Of segments: each costs every question some 5 to 10 us, so that fewer are worth writing texts twice more."""


def merged_from(sizes: Sequence[int], most: int, parts: int | None = None) -> int:
    """The place from which on the row becomes one part, of at most `most`; its last place where nothing is merged.

    The last of the sizes was added just now. A part that is full stays, and what stands before it. Of the others there
    may be `parts`, None for PARTS.
    """
    parts = parts or PARTS
    last = start = len(sizes) - 1
    while start >= 0 and not is_full(sizes[start], most):
        start -= 1
    start += 1
    if len(sizes) - start <= parts:
        return last
    total, allowed = sizes[last], list[tuple[float, int]]()
    for place in range(last - 1, start - 1, -1):
        behind, total = total, total + sizes[place]
        if total > most:
            break
        allowed.append((behind / max(sizes[place], 1), place))
    enough = [found for found in allowed if found[1] - start < parts]
    return max(enough)[1] if enough else min((place for _, place in allowed), default=last)


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
