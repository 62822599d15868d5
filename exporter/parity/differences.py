"""Where two answers part: the first step whose token differs, and how sure the reference was there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import fmean, median

from exporter.parity.rows import Row
from exporter.parity.sides import Reply

__all__ = ["MAX_EXAMPLES", "Difference", "FirstDifference", "differences_of", "first_difference_of"]

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
