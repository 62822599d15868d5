"""The points that were proposed and what is known of each, as the journal's events add it up."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from glimmer_export.exporter.tune.intervals import Estimate, difference, share
from glimmer_export.exporter.tune.measure import Timed
from glimmer_export.exporter.tune.space import Point

__all__ = ["NEARER", "Trial", "Trials", "written"]

NEARER = "nearer to the checkpoint"
"""Who proposes points that are measured once a search is over, as the gate passed none of its own."""


@dataclass
class Trial:
    """A point; `by` says who proposed it. `right` grows by rungs, `dropped` says why it was asked no further.

    `store_bytes` are those of the whole corpus.
    """

    number: int
    round: int
    by: str
    point: Point
    bundle_bytes: int | None = None
    store_bytes: int | None = None
    timed: Timed | None = None
    digests: dict[str, str] = field(default_factory=dict)
    right: list[float] = field(default_factory=list)
    dropped: str | None = None

    @property
    def is_built(self) -> bool:
        """Whether its sizes and its time are known."""
        return self.timed is not None

    @property
    def ratio(self) -> float:
        """Its time by the default's; the default itself is not faster than itself, whatever two runs of it say."""
        if self.number == 0:
            return 1.0
        assert self.timed is not None
        return self.timed.ratio

    @property
    def em(self) -> Estimate:
        """Exact match of the questions that it was asked."""
        return share(self.right)

    @property
    def sizes(self) -> tuple[int, int]:
        """Bytes of store and bundle."""
        assert self.store_bytes is not None
        assert self.bundle_bytes is not None
        return self.store_bytes, self.bundle_bytes

    def less(self, other: list[float]) -> Estimate:
        """Its exact match less another's, on the questions that both were asked."""
        count = min(len(self.right), len(other))
        return difference(self.right[:count], other[:count])


@dataclass
class Trials:
    """All of them by number, and what the reference has right of the search's questions."""

    all: list[Trial] = field(default_factory=list)
    reference: list[float] = field(default_factory=list)

    def apply(self, event: Mapping[str, Any]) -> None:
        """Add what a journal's event says; an event of another kind says nothing here.

        Raises ArithmeticError, LookupError, TypeError or ValueError for what cannot be.
        """
        kind = event["event"]
        if kind == "reference":
            self.reference = _right(event["right"])
        elif kind == "proposal":
            self.all.append(Trial(event["number"], event["round"], event["by"], Point.from_json(event["point"])))
        elif kind == "built":
            trial = self.all[event["number"]]
            trial.bundle_bytes, trial.store_bytes = event["bundle_bytes"], event["store_bytes"]
            trial.timed = _timed(event["own_ms"], event["default_ms"])
            trial.digests = dict(event["digests"])
        elif kind == "asked":
            self.all[event["number"]].right += _right(event["right"])
        elif kind == "dropped":
            self.all[event["number"]].dropped = str(event["why"])

    @property
    def default(self) -> Trial:
        """The first."""
        return self.all[0]

    @property
    def default_ms(self) -> float:
        """The default's time: the median over the blocks of all trials."""
        return median(
            value for trial in self.all if trial.timed is not None for value in trial.timed.default_ms
        )

    def latency_ms(self, trial: Trial) -> float:
        """A trial's time as if all had been measured at once: its ratio to the default's times the default's."""
        return trial.ratio * self.default_ms

    def complete(self) -> list[Trial]:
        """Those that were asked all of the search's questions, and were not dropped."""
        return [
            trial for trial in self.all
            if trial.is_built and trial.dropped is None and len(trial.right) == len(self.reference)
        ]


def written(right: list[float]) -> str:
    """Zeros and ones as the journal has them."""
    return "".join("1" if value else "0" for value in right)


def _timed(own: list[float], default: list[float]) -> Timed:
    if not own or len(own) != len(default) or not all(math.isfinite(value) and value > 0 for value in (*own, *default)):
        raise ValueError("times of blocks that are none")
    return Timed(tuple(own), tuple(default))


def _right(text: str) -> list[float]:
    return [float(letter == "1") for letter in text]
