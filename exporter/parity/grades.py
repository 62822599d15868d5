"""Answers of two sides to the same questions: equal tokens, exact match and F1, and what the candidate loses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

from exporter.answering.metrics import exact_match, token_f1
from exporter.parity.bootstrap import Interval, paired_interval
from exporter.parity.rows import Row
from exporter.parity.sides import Reply

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
    right = [bool(value) for value in _each(exact_match, rows, references)]
    graded = _graded(rows)
    pairs = [(references[place], candidates[place]) for place, is_right in zip(graded, right, strict=True) if is_right]
    return mean([one.tokens == other.tokens for one, other in pairs])


def em_of(rows: Sequence[Row], references: Sequence[Reply], candidates: Sequence[Reply]) -> Delta:
    """Exact match."""
    return _delta(_each(exact_match, rows, references), _each(exact_match, rows, candidates))


def f1_of(rows: Sequence[Row], references: Sequence[Reply], candidates: Sequence[Reply]) -> Delta:
    """F1 of the answers' words."""
    return _delta(_each(token_f1, rows, references), _each(token_f1, rows, candidates))


def num_graded(rows: Sequence[Row]) -> int:
    """How many questions have answers."""
    return len(_graded(rows))


def num_right(rows: Sequence[Row], replies: Sequence[Reply]) -> int:
    """How many of them a side has right, by exact match."""
    return sum(map(bool, _each(exact_match, rows, replies)))


def _graded(rows: Sequence[Row]) -> list[int]:
    return [place for place, row in enumerate(rows) if row.question.answers]


def _each(metric: Callable[[str, Sequence[str]], float], rows: Sequence[Row], replies: Sequence[Reply]) -> list[float]:
    return [metric(replies[place].text, rows[place].question.answers) for place in _graded(rows)]


def _delta(references: list[float], candidates: list[float]) -> Delta:
    reference, candidate = mean(references), mean(candidates)
    difference = None if reference is None or candidate is None else candidate - reference
    return Delta(reference, candidate, difference, paired_interval(references, candidates))
