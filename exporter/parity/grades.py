"""Answers of two sides to the same questions: equal tokens, exact match and F1, and what the candidate loses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from glimmer_export.exporter.answering.metrics import Grade, grade
from glimmer_export.exporter.parity.bootstrap import Interval, paired_interval
from glimmer_export.exporter.parity.rows import Row
from glimmer_export.exporter.parity.sides import Reply

__all__ = ["Delta", "answers_equal", "em_of", "equal_of_correct", "f1_of", "mean", "num_graded", "num_right"]


@dataclass(frozen=True)
class Delta:
    """A metric of both sides, from 0 to 1, over the questions with answers, and the candidate's less the reference's.

    `interval` is the 95% bootstrap interval of that difference, question by question.
    """

    reference: float | None
    candidate: float | None
    delta: float | None
    interval: Interval | None


def mean(values: Sequence[float]) -> float | None:
    """None of nothing."""
    return fmean(values) if values else None


def answers_equal(references: Sequence[Reply], candidates: Sequence[Reply]) -> float | None:
    """Share of the questions whose answers have the same tokens."""
    return mean([one.tokens == other.tokens for one, other in zip(references, candidates, strict=True)])


def equal_of_correct(
    rows: Sequence[Row], references: Sequence[Reply], candidates: Sequence[Reply]
) -> float | None:
    """The same share of the questions that the reference answers right (exact match); None where there are none."""
    graded = zip(_grades(rows, references), references, candidates, strict=True)
    return mean([one.tokens == other.tokens for given, one, other in graded if given is not None and given.em])


def em_of(rows: Sequence[Row], references: Sequence[Reply], candidates: Sequence[Reply]) -> Delta:
    """Exact match."""
    return _delta([given.em for given in _graded(rows, references)], [given.em for given in _graded(rows, candidates)])


def f1_of(rows: Sequence[Row], references: Sequence[Reply], candidates: Sequence[Reply]) -> Delta:
    """F1 of the answers' words."""
    return _delta([given.f1 for given in _graded(rows, references)], [given.f1 for given in _graded(rows, candidates)])


def num_graded(rows: Sequence[Row], replies: Sequence[Reply]) -> int:
    """How many questions have golds."""
    return len(_graded(rows, replies))


def num_right(rows: Sequence[Row], replies: Sequence[Reply]) -> int:
    """How many of them a side has right, by exact match."""
    return sum(given.em == 1 for given in _graded(rows, replies))


def _grades(rows: Sequence[Row], replies: Sequence[Reply]) -> list[Grade | None]:
    """One a row, None where the row has no gold."""
    return [grade(reply.text, row.question.answers) for row, reply in zip(rows, replies, strict=True)]


def _graded(rows: Sequence[Row], replies: Sequence[Reply]) -> list[Grade]:
    """Of the rows that have golds: the same of both sides."""
    return [given for given in _grades(rows, replies) if given is not None]


def _delta(references: list[float], candidates: list[float]) -> Delta:
    reference, candidate = mean(references), mean(candidates)
    difference = None if reference is None or candidate is None else candidate - reference
    return Delta(reference, candidate, difference, paired_interval(references, candidates))
