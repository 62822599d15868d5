"""Where two answers part, and how sure the reference was there; how sure both sides were where they are equal."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import fmean, median

from glimmer_export.exporter.parity.rows import Row
from glimmer_export.exporter.parity.sides import Reply

__all__ = [
    "MAX_EXAMPLES", "Difference", "FirstDifference", "LogProbabilityDifference", "differences_of",
    "first_difference_of", "log_probability_difference",
]  # fmt: skip

MAX_EXAMPLES = 50


@dataclass(frozen=True)
class Difference:
    """A question that is answered otherwise.

    `step` is the first whose token differs, from 0, EOS's included; `margin` how far the reference's best logit stood
    above the next there, None where it decoded nothing.
    """

    qid: str
    question: str
    step: int
    margin: float | None
    reference: str
    candidate: str


@dataclass(frozen=True)
class FirstDifference:
    """All differing answers: how many, how many by step, and the reference's margins at these steps."""

    count: int
    mean_step: float | None
    steps: dict[str, int]
    margin_mean: float | None
    margin_median: float | None


@dataclass(frozen=True)
class LogProbabilityDifference:
    """How far the log-probability of an answer stands from the reference's, in nats: mean and largest, of how many.

    Of the questions that both sides answer with the same tokens: of two answers it is no error that one is likelier.
    Infinite where one side's is no number.
    """

    questions: int
    mean_abs_difference: float
    max_abs_difference: float


def differences_of(rows: Sequence[Row], references: Sequence[Reply], candidates: Sequence[Reply]) -> list[Difference]:
    """Every question whose answer tokens differ, in the file's order."""
    found = []
    for row, one, other in zip(rows, references, candidates, strict=True):
        if one.tokens != other.tokens:
            pairs = zip_longest(one.tokens, other.tokens)
            step = next(place for place, (left, right) in enumerate(pairs) if left != right)
            margin = one.margins[step] if step < len(one.margins) else None
            found.append(Difference(row.question.qid, row.question.question, step, margin, one.text, other.text))
    return found


def first_difference_of(differences: Sequence[Difference]) -> FirstDifference:
    """Sum up; None where nothing differs."""
    steps = [item.step for item in differences]
    margins = [item.margin for item in differences if item.margin is not None]
    return FirstDifference(
        count=len(steps),
        mean_step=fmean(steps) if steps else None,
        steps={str(step): count for step, count in sorted(Counter(steps).items())},
        margin_mean=fmean(margins) if margins else None,
        margin_median=median(margins) if margins else None,
    )


def log_probability_difference(
    references: Sequence[Reply], candidates: Sequence[Reply]
) -> LogProbabilityDifference | None:
    """Compare; None where a side's graphs do not tell, and where no answers are equal."""
    found = [
        abs(other.log_probability - one.log_probability)
        for one, other in zip(references, candidates, strict=True)
        if one.tokens == other.tokens and one.log_probability is not None and other.log_probability is not None
    ]
    if not found:
        return None
    numbers = [value if math.isfinite(value) else math.inf for value in found]
    return LogProbabilityDifference(len(numbers), fmean(numbers), max(numbers))
