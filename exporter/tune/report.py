"""What a search found: its front, what it chose and why, and how that stands to the goals; and its JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.bench.load import Load
from glimmer_export.exporter.tune.front import beats, lessons
from glimmer_export.exporter.tune.goals import Goals, Standing
from glimmer_export.exporter.tune.intervals import Estimate, share
from glimmer_export.exporter.tune.lines import Inputs, point_lines
from glimmer_export.exporter.tune.measure import HERE, MODEL
from glimmer_export.exporter.tune.space import Space
from glimmer_export.exporter.tune.trials import Trial, Trials
from glimmer_export.exporter.tune.verdict import HeldOut, beyond, held_of, relaxed
from glimmer_export.runtime.contract import PASSED

if TYPE_CHECKING:
    from glimmer_export.exporter.tune.run import TuneRequest

__all__ = ["TuneReport"]


@dataclass(frozen=True)
class TuneReport:
    """A search's end, or how far it came.

    `held_out` has what was held against the gate, in this order; `chosen` is the number of one of them, or None if no
    point meets the goals, or the gate failed all. `questions` are those of the search, those held out, and
    those without answers. `reckoned`: latency is the target's model. `seconds` are of all runs of the search.
    """

    request: TuneRequest
    goals: Goals
    inputs: Inputs
    space: Space
    trials: Trials
    front: Sequence[Trial]
    held_out: Sequence[HeldOut]
    chosen: int | None
    standings: tuple[Standing, ...]
    ended: str
    reckoned: bool
    questions: tuple[int, int, int]
    passages: int
    sampled: bool
    retrieve_ms: float
    seconds: float
    load: Load

    @property
    def space_size(self) -> int | None:
        """How many points there are; None if they are more than are counted."""
        return self.space.size

    @property
    def source_of_latency(self) -> str:
        """Where times are from."""
        return MODEL if self.reckoned else HERE

    @property
    def met(self) -> bool:
        """Whether there is a chosen point, the gate passed it, and every goal is met."""
        return self.chosen is not None and self.gate_passed and all(standing.met for standing in self.standings)

    @property
    def gate_passed(self) -> bool:
        """Of the chosen point; a gate of more questions than were held out passes nothing."""
        return self.held is not None and self.held.gate.passed

    @property
    def shown(self) -> list[Trial]:
        """The front, and the chosen point behind it where it does not stand on it, as the gate failed what does."""
        others = [] if self.chosen is None else [self.trials.all[self.chosen]]
        return [*self.front, *(trial for trial in others if trial not in self.front)]

    @property
    def held(self) -> HeldOut | None:
        """The chosen point's figures of the held-out questions."""
        return None if self.chosen is None else held_of(self.held_out, self.chosen)

    def sentences(self) -> list[str]:
        """The verdict for people."""
        if (held := self.held) is None:
            return self._none_chosen()
        said = [standing.sentence() for standing in self.standings]
        others = len(self.held_out) - 1
        refused = f"; of {others} others that were held against it none passed" if others else ""
        said.append(f"gate {held.gate.name}, on {self.questions[1]} held-out questions: {held.gate.verdict}{refused}")
        if held.gate.verdict != PASSED:
            said += [f"  {beyond(check)}" for check in held.gate.checks if not check.passed]
        return said

    def _none_chosen(self) -> list[str]:
        if self.held_out:
            gate, default = self.held_out[0].gate.name, self.space.default
            said = [f"no point passed the gate {gate} of {len(self.held_out)} that meet the goals:"]
            for item in self.held_out:
                said.append(f"  point {item.number}, {self.trials.all[item.number].point.words(default)}")
                said += [f"    {beyond(check)}" for check in item.gate.checks if not check.passed]
            said += [sentence] if (sentence := relaxed(self.held_out)) else []
            return said
        return ["no point meets every goal by the search's questions:", *(f"  {line}" for line in self._nearest())]

    def _nearest(self) -> list[str]:
        """Of each goal the least that there is, and the least of points that meet the other goals; and by how much."""
        asked = [trial for trial in self.trials.all if trial.is_built and trial.right]
        limits: dict[str, tuple[float, Callable[[Trial], float], str]] = {}
        if self.goals.latency_ms is not None:
            limits["latency_ms"] = self.goals.latency_ms, self.trials.latency_ms, "ms"
        if self.goals.store_gb is not None:
            limits["store_gb"] = self.goals.store_gb, lambda trial: trial.sizes[0] / 1e9, "GB"
        if self.goals.em_loss is not None:
            limits["em_loss"] = self.goals.em_loss, self._loss, "points"
        said = []
        for goal, (limit, figure, unit) in limits.items():
            able = asked if goal == "em_loss" else [trial for trial in self.trials.all if trial.is_built]
            others = [item for name, item in limits.items() if name != goal]
            beside = [trial for trial in asked if all(its(trial) <= most for most, its, _ in others)]
            best = min(able, key=figure)
            found = figure(best)
            if found > limit:
                said.append(f"{goal} {limit:g} {unit} binds: the least is {found:.4g}, {found - limit:.4g} too much")
                continue
            words = f"{goal} {limit:g} {unit} alone is met, by point {best.number} with {found:.4g}"
            if others and beside and (found := figure(best := min(beside, key=figure))) > limit:
                words += (
                    f"; of points that meet the other goals point {best.number} has the least, {found:.4g}, "
                    f"{found - limit:.4g} too much"
                )
            said.append(words)
        return said

    def _loss(self, trial: Trial) -> float:
        return -100 * trial.less(self.trials.reference).value + 0.0

    def lines(self, trial: Trial) -> list[str]:
        """The command lines that make a point again."""
        return point_lines(self.inputs, trial.point, f"point-{trial.number}", held_out=True)

    def to_json(self) -> dict[str, Any]:
        """Plain data, with stable keys."""
        search, held_out, ungraded = self.questions
        counts = {
            "proposed": len(self.trials.all), "complete": len(self.trials.complete()),
            "dropped": sum(trial.dropped is not None for trial in self.trials.all),
        }  # fmt: skip
        return {
            "goals": asdict(self.goals), "target": self.request.target, "latency": self.source_of_latency,
            "questions": {"search": search, "held_out": held_out, "without_answers": ungraded},
            "passages": self.passages, "sampled": self.sampled, "retrieve_ms": self.retrieve_ms,
            "ended_by": self.ended, "seconds": self.seconds, "points": counts,
            "space": {"values": dict(self.space.values), "notes": list(self.space.notes)},
            "load": self.load.to_json(),
            "reference": {"em": share(self.trials.reference).to_json()},
            "default": self._point(self.trials.default),
            "front": [self._point(trial) for trial in self.front],
            "chosen": self.chosen, "met": self.met,
            "chosen_point": None if self.chosen is None else self._point(self.trials.all[self.chosen]),
            "standings": [{**asdict(standing), "excess": standing.excess} for standing in self.standings],
            "held_out": [self._held(item) for item in self.held_out],
            "lessons": [
                {
                    "switch": lesson.switch, "value": lesson.value, "pays": lesson.pays, **self._figures(lesson.trial),
                }
                for lesson in lessons(self.trials)
            ],
            "dropped": [
                {"number": trial.number, "switches": trial.point.to_json(), "why": trial.dropped}
                for trial in self.trials.all if trial.dropped is not None
            ],
            "verdict": self.sentences(),
        }  # fmt: skip

    def _point(self, trial: Trial) -> dict[str, Any]:
        return {
            "number": trial.number, "by": trial.by, "switches": trial.point.to_json(), **self._figures(trial),
            "beats_default_in": beats(trial, self.trials, self.goals), "digests": trial.digests,
            "commands": self.lines(trial),
        }  # fmt: skip

    def _figures(self, trial: Trial) -> dict[str, Any]:
        return {
            "latency_ms": self.trials.latency_ms(trial), "latency_ratio": trial.ratio,
            "store_bytes": trial.sizes[0], "bundle_bytes": trial.sizes[1], "em": trial.em.to_json(),
            "em_less_reference": trial.less(self.trials.reference).to_json(),
            "em_less_default": trial.less(self.trials.default.right).to_json(),
        }  # fmt: skip

    def _held(self, item: HeldOut) -> dict[str, Any]:
        estimates: Mapping[str, Estimate] = {
            "em": item.em, "em_less_reference": item.less_reference, "em_less_default": item.less_default
        }
        found: dict[str, Any] = {"number": item.number}
        found |= {name: estimate.to_json() for name, estimate in estimates.items()}
        return {**found, "gate": {**asdict(item.gate), "checks": [asdict(check) for check in item.gate.checks]}}
