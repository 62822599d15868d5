"""How far two sides rank a question's passages alike."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.parity.rows import Row
from glimmer_export.exporter.parity.sides import Reply

__all__ = ["gold_in_top_m", "kendall_tau", "mean_kendall_tau", "num_ranked", "num_with_gold", "top_m_overlap"]


def kendall_tau(first: NDArray[np.floating], second: NDArray[np.floating]) -> float | None:
    """Kendall's tau-b of two rankings of the same things, scores (n,) each, from -1 to 1.

    Of all pairs, those that both order alike less those that they order otherwise, over the geometric mean of the pairs
    that each orders at all: ties count as no order. None where one of them orders nothing. A NaN ties with everything.
    """
    orders = [np.triu((scores[:, None] > scores) * 1 - (scores[:, None] < scores), 1) for scores in (first, second)]
    ordered = [int(np.count_nonzero(order)) for order in orders]
    if not all(ordered):
        return None
    return float((orders[0] * orders[1]).sum() / np.sqrt(float(ordered[0]) * ordered[1]))


def mean_kendall_tau(references: Sequence[Reply], candidates: Sequence[Reply]) -> float | None:
    """Mean over the questions of which both sides order some passages; None where there are none."""
    taus = [
        tau
        for one, other in zip(references, candidates, strict=True)
        if one.scores is not None and other.scores is not None
        if (tau := kendall_tau(one.scores, other.scores)) is not None
    ]
    return fmean(taus) if taus else None


def top_m_overlap(references: Sequence[Reply], candidates: Sequence[Reply]) -> float | None:
    """Mean share of the passages that the reference reads which the candidate reads too.

    Of the questions where there was a choice: with no more passages than are read, both read all, and where that is so
    of every question, the share is of those. None without a selection.
    """
    pairs = [(one, other) for one, other in zip(references, candidates, strict=True) if one.selected]
    shares = [
        len({*(one.selected or ())} & {*(other.selected or ())}) / len(one.selected or ())
        for one, other in [pair for pair in pairs if _had_choice(pair[0])] or pairs
    ]
    return fmean(shares) if shares else None


def num_ranked(references: Sequence[Reply]) -> int:
    """How many questions had more passages than were read."""
    return sum(map(_had_choice, references))


def num_with_gold(rows: Sequence[Row], replies: Sequence[Reply]) -> int:
    """How many questions count in `gold_in_top_m`."""
    return sum(
        reply.selected is not None and bool(_gold_places(row)) for row, reply in zip(rows, replies, strict=True)
    )


def gold_in_top_m(rows: Sequence[Row], replies: Sequence[Reply]) -> float | None:
    """Of the questions with a gold passage among the candidates, the share where at least one such is read.

    Gold passages are those of the file's `gold_ids`, among the passages that have an id. None without a selection or
    without any such question.
    """
    found = [
        any(place in reply.selected for place in gold)
        for row, reply in zip(rows, replies, strict=True)
        if reply.selected is not None and (gold := _gold_places(row))
    ]
    return fmean(found) if found else None


def _had_choice(reply: Reply) -> bool:
    return reply.scores is not None and reply.selected is not None and len(reply.scores) > len(reply.selected)


def _gold_places(row: Row) -> Collection[int]:
    gold = {*row.question.gold_ids}
    ids = [candidate.passage.id for candidate in row.candidates]
    return [place for place, name in enumerate(ids) if name is not None and name in gold]
