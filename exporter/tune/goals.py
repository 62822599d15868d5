"""What is asked for: milliseconds an answer, gigabytes of store, points of exact match that may be lost."""

from __future__ import annotations

from dataclasses import dataclass

from glimmer_export.exporter.tune.intervals import Estimate, questions_needed

__all__ = ["MET", "MISSED", "RECKONED", "UNDECIDED", "Goals", "Standing", "standing_of_em", "standing_of_figure"]

MET, RECKONED, MISSED, UNDECIDED = "met", "met by the target's model", "not met", "undecided"
"""RECKONED: no machine of that kind measured it, and its floor is a floor."""
GB = 1e9


@dataclass(frozen=True)
class Goals:
    """Limits; one that is None is as low as can be had. `em_loss` is in points, hundredths of exact match."""

    latency_ms: float | None = None
    store_gb: float | None = None
    em_loss: float | None = None

    @property
    def store_bytes(self) -> float | None:
        """The store's limit; a gigabyte is 10^9 bytes."""
        return None if self.store_gb is None else self.store_gb * GB

    @property
    def em_share(self) -> float | None:
        """The loss that is allowed as a share."""
        return None if self.em_loss is None else self.em_loss / 100


@dataclass(frozen=True)
class Standing:
    """How a figure stands to its limit.

    `excess` is by how much it is above, in the limit's unit, at most 0 if it is met. Of exact match `found` is the loss
    in points, `bound` the most that it may be as far as the questions tell, and `needed` the number that
    would tell if the others are like these, at the least where more than the limit was lost; None where these do.
    """

    goal: str
    limit: float
    found: float
    word: str
    bound: float | None = None
    questions: int | None = None
    needed: int | None = None

    @property
    def excess(self) -> float:
        """Above the limit; negative below it."""
        return self.found - self.limit

    @property
    def met(self) -> bool:
        """Whether it is met, be it by a model."""
        return self.word in (MET, RECKONED)

    def sentence(self) -> str:
        """For people."""
        limit, found = f"{self.limit:g}", f"{self.found:.4g}"
        if self.goal == "em_loss":
            said = f"em_loss {limit} points: {found} lost, at most {self.bound:.2f} by {self.questions} questions"
            more = f"; it takes {self.needed:,} questions like these to tell, at the least" if self.needed else ""
            return f"{said}: {self.word}{more}"
        unit = {"latency_ms": "ms", "store_gb": "GB"}[self.goal]
        beyond = f", {self.excess:.4g} {unit} too much" if self.excess > 0 else ""
        return f"{self.goal} {limit} {unit}: {found}{beyond}: {self.word}"


def standing_of_figure(goal: str, limit: float, found: float, *, reckoned: bool = False) -> Standing:
    """Of milliseconds or gigabytes."""
    word = MISSED if found > limit else RECKONED if reckoned else MET
    return Standing(goal, limit, found, word)


def standing_of_em(limit: float, delta: Estimate) -> Standing:
    """Of a loss in points, by the interval's bound: `delta` is the candidate's exact match less the reference's.

    Met where no loss beyond the limit is within the interval, not met where every loss within it is beyond; else the
    questions are too few.
    """
    loss, most, least = -100 * delta.value + 0.0, -100 * delta.low, -100 * delta.high
    word = MET if most <= limit else MISSED if least > limit else UNDECIDED
    needed = None
    if word == UNDECIDED:
        needed = questions_needed(delta.discordant or 0.0, limit / 100, 0.0 if loss >= limit else max(0.0, loss) / 100)
        needed = None if needed is None else max(needed, delta.questions + 1)
    return Standing("em_loss", limit, loss, word, most, delta.questions, needed)
