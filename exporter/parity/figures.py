"""Two sides' replies -> figures: grades, rankings, differing answers, and what questions all of that rests on."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import fmean, median
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.answering.metrics import Grade, grade
from glimmer_export.exporter.parity.graph_errors import LEAST_SNR_DB
from glimmer_export.exporter.parity.inputs import Row
from glimmer_export.exporter.parity.sides import Reply

__all__ = [
    "MAX_EXAMPLES", "Answered", "Coverage", "Delta", "Difference", "FirstDifference", "Interval",
    "LogProbabilityDifference", "answers_equal", "coverage_of", "differences_of", "em_of", "equal_of_correct", "f1_of",
    "first_difference_of", "gold_in_top_m", "kendall_tau", "log_probability_difference", "mean_kendall_tau",
    "paired_interval", "score_snr_db", "top_m_overlap",
]  # fmt: skip

Interval = tuple[float, float]
"""Lower and upper end."""

RESAMPLES = 10_000
CONFIDENCE = 0.95


def paired_interval(reference: Sequence[float], candidate: Sequence[float], *, seed: int = 0) -> Interval | None:
    """The 95% interval of mean(candidate - reference) over questions drawn with replacement; None without any.

    Resampling n differences is drawing how often each distinct one comes up, from a multinomial: most are 0, so 10,000
    resamples of thousands of questions cost little.
    """
    if not reference:
        return None
    differences = np.subtract(candidate, reference, dtype=np.float64)
    values, counts = np.unique(differences, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(differences), counts / counts.sum(), size=RESAMPLES)
    means = drawn @ values / len(differences)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


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
    """The same share of the questions that the reference answers right (exact match); None if there are none."""
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
    """One a row, None if the row has no gold."""
    return [grade(reply.text, row.question.answers) for row, reply in zip(rows, replies, strict=True)]


def _graded(rows: Sequence[Row], replies: Sequence[Reply]) -> list[Grade]:
    """Of the rows that have golds: the same of both sides."""
    return [given for given in _grades(rows, replies) if given is not None]


def _delta(references: list[float], candidates: list[float]) -> Delta:
    reference, candidate = mean(references), mean(candidates)
    difference = None if reference is None or candidate is None else candidate - reference
    return Delta(reference, candidate, difference, paired_interval(references, candidates))


def kendall_tau(first: NDArray[np.floating], second: NDArray[np.floating]) -> float | None:
    """Kendall's tau-b of two rankings of the same things, scores (n,) each, from -1 to 1.

    Of all pairs, those that both order alike less those that they order otherwise, over the geometric mean of the pairs
    that each orders at all: ties count as no order. None if one of them orders nothing. A NaN ties with everything.
    """
    orders = [np.triu((scores[:, None] > scores) * 1 - (scores[:, None] < scores), 1) for scores in (first, second)]
    ordered = [int(np.count_nonzero(order)) for order in orders]
    if not all(ordered):
        return None
    return float((orders[0] * orders[1]).sum() / np.sqrt(float(ordered[0]) * ordered[1]))


def mean_kendall_tau(references: Sequence[Reply], candidates: Sequence[Reply]) -> float | None:
    """Mean over the questions of which both sides order some passages; None if there are none."""
    taus = [
        tau
        for one, other in zip(references, candidates, strict=True)
        if one.scores is not None and other.scores is not None
        if (tau := kendall_tau(one.scores, other.scores)) is not None
    ]
    return fmean(taus) if taus else None


class Scored(Protocol):
    """Whatever has scores (k,), or None."""

    @property
    def scores(self) -> NDArray[np.float32] | None:
        """Of a question's passages."""


def score_snr_db(references: Sequence[Scored], candidates: Sequence[Scored]) -> float | None:
    """Variance of the reference's scores over a question's passages by that of their error, in dB; None if not ranked.

    Of all questions together. A shift of all scores of a question changes no choice, and is no error. Infinite without
    any error.
    """
    signal = noise = 0.0
    ranked = False
    for one, other in zip(references, candidates, strict=True):
        if one.scores is not None and other.scores is not None and len(one.scores) > 1:
            ranked = True
            signal += float(np.var(one.scores.astype(np.float64)))
            noise += float(np.var(other.scores.astype(np.float64) - one.scores))
    return decibel(signal, noise) if ranked else None


def decibel(signal: float, noise: float) -> float:
    """Their ratio; infinite without noise, the least there is without a signal or if the noise is no number."""
    if noise == 0:
        return math.inf
    return LEAST_SNR_DB if signal == 0 or not math.isfinite(noise) else 10 * math.log10(signal / noise)


def top_m_overlap(
    references: Sequence[Reply], candidates: Sequence[Reply], *, of_candidate: bool = False
) -> float | None:
    """Mean share of the passages that the reference reads which the candidate reads too.

    `of_candidate`, for one that chose to read fewer: of those that it reads, the share that the reference does too. Of
    the questions if there was a choice: with no more passages than are read, both read all, and if that is so of every
    question, the share is of those. None without a selection.
    """
    pairs = [(one, other) for one, other in zip(references, candidates, strict=True) if one.selected]
    shares = [
        len({*(one.selected or ())} & {*(other.selected or ())}) / len((other if of_candidate else one).selected or ())
        for one, other in [pair for pair in pairs if _had_choice(pair[0])] or pairs
    ]
    return fmean(shares) if shares else None


def passages_read(replies: Sequence[Reply]) -> float | None:
    """Mean number of passages read of a question, where they were selected; None if nowhere."""
    counts = [len(reply.selected) for reply in replies if reply.selected is not None]
    return fmean(counts) if counts else None


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


MAX_EXAMPLES = 50


@dataclass(frozen=True)
class Difference:
    """A question that is answered otherwise.

    `step` is the first whose token differs, from 0, EOS's included; `margin` how far the reference's best logit stood
    above the next there, None if it decoded nothing.
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
    Infinite if one side's is no number. `snr_db` is the variance of the reference's over these questions by the mean
    square of the difference, in dB, infinite without any.
    """

    questions: int
    mean_abs_difference: float
    max_abs_difference: float
    snr_db: float


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
    """Sum up; None if nothing differs."""
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
    """Compare; None if a side's graphs do not tell, and if no answers are equal."""
    pairs = [
        (one.log_probability, other.log_probability)
        for one, other in zip(references, candidates, strict=True)
        if one.tokens == other.tokens and one.log_probability is not None and other.log_probability is not None
    ]
    if not pairs:
        return None
    before, after = np.array(pairs, np.float64).T
    with np.errstate(invalid="ignore"):
        found = np.nan_to_num(np.abs(after - before), nan=math.inf)
        ratio = decibel(float(np.var(before)), float(np.square(found).mean()))
    return LogProbabilityDifference(len(pairs), float(found.mean()), float(found.max()), ratio)


@dataclass(frozen=True)
class Coverage:
    """Numbers of questions: `asked` are `answered`, `refused` and `unretrieved`, each in one of these.

    `answered`: passages were found, so that the graphs ran; only these count in any share. `refused`: no question or
    passage that can be taken. `unretrieved`: no passage was found. Of the answered ones: to those that are `blank`
    neither side says a word; the others hold `distinct` ones, which differ in their tokens or in which passages they
    have, in whatever order; `graded` have answers, `right` are those that the reference has right; in `ranked` more
    passages were found than are read, in `with_gold` a gold passage is among them.
    """

    asked: int
    answered: int
    refused: int
    unretrieved: int
    blank: int
    distinct: int
    graded: int
    right: int
    ranked: int
    with_gold: int


@dataclass(frozen=True)
class Answered:
    """The questions that were answered, with both sides' replies."""

    rows: list[Row]
    references: list[Reply]
    candidates: list[Reply]


def coverage_of(
    rows: Sequence[Row], references: Sequence[Reply], candidates: Sequence[Reply], *, refused: int
) -> tuple[Coverage, Answered]:
    """Count, and leave out what was not answered; `rows` are all that could be taken."""
    places = [place for place, row in enumerate(rows) if row.candidates]
    said = [rows[place] for place in places if references[place].tokens or candidates[place].tokens]
    answered = Answered(
        [rows[place] for place in places], [references[place] for place in places],
        [candidates[place] for place in places],
    )
    coverage = Coverage(
        asked=len(rows) + refused,
        answered=len(places),
        refused=refused,
        unretrieved=len(rows) - len(places),
        blank=len(places) - len(said),
        distinct=len({(tuple(row.ids), frozenset(row.numbers)) for row in said}),
        graded=num_graded(answered.rows, answered.references),
        right=num_right(answered.rows, answered.references),
        ranked=num_ranked(answered.references),
        with_gold=num_with_gold(answered.rows, answered.references),
    )
    return coverage, answered
