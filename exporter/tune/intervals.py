"""Intervals of exact match, a share, and of the difference of two on the same questions.

Not the bootstrap's: of twenty questions on which two models agree it says that they are equal, to the last digit.
Scores' intervals (Wilson 1927; for pairs Tango 1998, "Equivalence test and confidence interval for the difference in
proportions for the paired-sample design") know that twenty questions tell little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass

__all__ = ["Estimate", "difference", "questions_needed", "share"]

Z = 1.959963984540054
"""Of a two-sided interval of 95%."""
HALVINGS = 60
MOST_QUESTIONS = 1 << 40
"""For which a limit is too narrow to be told by questions at all."""


@dataclass(frozen=True)
class Estimate:
    """A share from 0 to 1, or the difference of two, and the ends of its 95% interval, over so many questions.

    `discordant` is the share of the questions of which one side was right and the other wrong; None of a share alone.
    """

    value: float
    low: float
    high: float
    questions: int
    discordant: float | None = None

    def to_json(self) -> dict[str, float | int | None]:
        """Plain numbers."""
        return asdict(self)


def share(right: Sequence[float]) -> Estimate:
    """The mean of zeros and ones, with Wilson's interval; at least one."""
    count, mean = len(right), sum(right) / len(right)
    square = Z * Z
    middle = (mean + square / (2 * count)) / (1 + square / count)
    half = Z / (1 + square / count) * math.sqrt(mean * (1 - mean) / count + square / (4 * count * count))
    return Estimate(mean, max(0.0, middle - half), min(1.0, middle + half), count)


def difference(candidate: Sequence[float], reference: Sequence[float]) -> Estimate:
    """The candidate's share less the reference's, question by question zeros and ones; Tango's interval."""
    if len(candidate) != len(reference) or not candidate:
        raise ValueError("a paired difference is of the same questions, at least one")
    gained = sum(own > other for own, other in zip(candidate, reference, strict=True))
    lost = sum(own < other for own, other in zip(candidate, reference, strict=True))
    low, high = _interval(gained, lost, len(candidate))
    return Estimate(
        (gained - lost) / len(candidate), low, high, len(candidate), (gained + lost) / len(candidate)
    )


def questions_needed(discordant: float, limit: float, loss: float = 0.0) -> int | None:
    """Of how many questions the interval of a model lies within `limit` of a loss; None if no number will do.

    `discordant` is the share of questions on which it differs from what it is compared with, and `loss` that by which
    it differs for the worse more often than for the better; `limit` is a share too.
    """
    low, high = 1, 1
    while not _tells(discordant, loss, limit, high):
        low, high = high, 2 * high
        if high > MOST_QUESTIONS:
            return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _tells(discordant, loss, limit, middle) else (middle + 1, high)
    return high


def _tells(discordant: float, loss: float, limit: float, questions: int) -> bool:
    gained, lost = ((discordant + sign * loss) * questions / 2 for sign in (-1, 1))
    return -_interval(gained, lost, questions)[0] <= limit


def _interval(gained: float, lost: float, count: int) -> tuple[float, float]:
    """Where Tango's score statistic is Z, on either side of the difference that was seen."""
    seen = (gained - lost) / count

    def beyond(delta: float) -> bool:
        return abs(_statistic(gained, lost, count, delta)) > Z

    ends = []
    for edge in (-1.0, 1.0):
        inside, outside = seen, edge
        if not beyond(outside):
            ends.append(edge)
            continue
        for _ in range(HALVINGS):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if beyond(middle) else (middle, outside)
        ends.append(inside)
    return ends[0], ends[1]


def _statistic(gained: float, lost: float, count: int, delta: float) -> float:
    """Tango's: the difference less `delta`, over its deviation where the true difference is `delta`."""
    linear = -gained - lost + (2 * count - gained + lost) * delta
    constant = -lost * delta * (1 - delta)
    root = math.sqrt(max(linear * linear - 8 * count * constant, 0.0))
    wrong = (root - linear) / (4 * count)
    variance = count * (2 * wrong + delta * (1 - delta))
    distance = gained - lost - count * delta
    if variance <= 0:
        return 0.0 if distance == 0 else math.copysign(math.inf, distance)
    return distance / math.sqrt(variance)
