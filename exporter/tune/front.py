"""The points of which no other is as good in everything and better in something: latency, bytes, exact match."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from glimmer_export.exporter.tune.goals import Goals
from glimmer_export.exporter.tune.halving import BUNDLE_NOISE, LATENCY_NOISE, costs_no_more, why_not_asked
from glimmer_export.exporter.tune.space import Point
from glimmer_export.exporter.tune.trials import Trial, Trials

__all__ = ["ROUNDING", "Lesson", "beats", "front_of", "lessons", "nearest", "ordered"]

ROUNDING = ("codec", "precision", "weight_only", "mass")
"""The switches by which answers differ from the checkpoint's at the same k and m."""


def front_of(trials: Sequence[Trial]) -> list[Trial]:
    """Of complete trials those that no other dominates, the fastest first; of equal ones the first that was tried."""
    return sorted(
        (trial for trial in trials if not any(_dominates(other, trial) for other in trials if other is not trial)),
        key=lambda trial: (trial.ratio, trial.number),
    )


def _dominates(one: Trial, other: Trial) -> bool:
    if not costs_no_more(one, other) or sum(one.right) < sum(other.right):
        return False
    better = (
        one.sizes[0] < other.sizes[0] or one.sizes[1] * BUNDLE_NOISE < other.sizes[1]
        or sum(one.right) > sum(other.right) or one.ratio * LATENCY_NOISE < other.ratio
    )  # fmt: skip
    return better or (one.number < other.number and one.ratio <= other.ratio * LATENCY_NOISE)


def ordered(front: Sequence[Trial], trials: Trials, goals: Goals, least: float | None = None) -> list[Trial]:
    """Those of a front that meet the goals by the search's figures, what is to be chosen first.

    That is what surely loses no more than the limit, and of that the cheapest: the least product of time, store and
    bundle beside the default's. Without a limit for the loss none may have less right than `least`, or the default.
    """
    allowed = goals.em_share
    default = trials.default
    least = sum(default.right) if least is None else least
    sound = [
        trial for trial in front
        if why_not_asked(trial, trials, goals) is None
        and (goals.latency_ms is None or trials.latency_ms(trial) <= goals.latency_ms)
        and (goals.store_bytes is None or trial.sizes[0] <= goals.store_bytes)
        and (
            sum(trial.right) >= least if allowed is None
            else -trial.less(trials.reference).value <= allowed
        )
    ]  # fmt: skip
    return sorted(sound, key=lambda trial: (_doubtful(trial, trials, allowed), _cost(trial, default), trial.number))


def nearest(
    points: Sequence[Trial], trials: Trials, goals: Goals, reference: Point, codecs: Sequence[str]
) -> list[Trial]:
    """Of points those that meet the goals, first those that round in the fewest switches, and of these the cheapest.

    `codecs` are those that may be, that which keeps memory best first. Without a limit for the loss none may have less
    right than both the default and the reference.
    """
    def rounded(trial: Trial) -> tuple[int, int]:
        codec = str(trial.point["codec"])
        count = sum(trial.point[name] != reference[name] for name in ROUNDING)
        return count, codecs.index(codec) if codec in codecs else len(codecs)

    least = min(sum(trials.default.right), sum(trials.reference))
    return sorted(ordered(points, trials, goals, least), key=rounded)


def _doubtful(trial: Trial, trials: Trials, allowed: float | None) -> bool:
    """Whether more than the limit may be lost, as far as the search's questions tell."""
    return allowed is not None and -trial.less(trials.reference).low > allowed


def _cost(trial: Trial, default: Trial) -> float:
    """Logarithm of the product of time and bytes, the default's being 0."""
    sizes = zip(trial.sizes, default.sizes, strict=True)
    return math.log(trial.ratio) + sum(math.log(own / other) for own, other in sizes)


def beats(trial: Trial, trials: Trials, goals: Goals) -> list[str]:
    """The goals asked in which a point is better than the default, if it is worse in none of them; else none.

    By the search's figures, times that differ by no more than noise being the same. Without any goal: of all.
    """
    default = trials.default
    asked = {
        "latency_ms": goals.latency_ms, "store_gb": goals.store_gb, "em_loss": goals.em_loss
    }  # fmt: skip
    names = [name for name, limit in asked.items() if limit is not None] or list(asked)
    better = {
        "latency_ms": trial.ratio * LATENCY_NOISE < 1, "store_gb": trial.sizes[0] < default.sizes[0],
        "em_loss": sum(trial.right) > sum(default.right),
    }  # fmt: skip
    worse = {
        "latency_ms": trial.ratio > LATENCY_NOISE, "store_gb": trial.sizes[0] > default.sizes[0],
        "em_loss": sum(trial.right) < sum(default.right),
    }  # fmt: skip
    return [] if any(worse[name] for name in names) else [name for name in names if better[name]]


@dataclass(frozen=True)
class Lesson:
    """What one other value of one switch does beside the default, all else being the same."""

    switch: str
    value: object
    trial: Trial
    pays: float


def lessons(trials: Trials) -> list[Lesson]:
    """Of every value that was tried alone and asked all questions, what pays most first.

    `pays` is how many times less the product of time, store and bundle is; what loses exact match for sure comes last.
    """
    default, found = trials.default, []
    for trial in trials.complete():
        names = trial.point.differs(default.point)
        if len(names) == 1:
            pays = math.exp(-_cost(trial, default))
            found.append(Lesson(names[0], trial.point[names[0]], trial, pays))
    return sorted(found, key=lambda item: (item.trial.less(default.right).high < 0, -item.pays, item.trial.number))
