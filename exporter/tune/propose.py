"""Which points are tried, in rounds: the default, each switch alone, and then what Optuna proposes of what was found.

Optuna's pruners know one objective only, so that it proposes and no more: what is dropped, `halving` decides. The same
journal gives the same proposals: the sampler is seeded, and is told the journal's figures in the journal's order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.tune.space import Point, Space
from glimmer_export.exporter.tune.trials import Trial

if TYPE_CHECKING:
    from optuna.study import Study

__all__ = ["ALONE", "DEFAULT", "OPTUNA", "REST", "Proposer"]

DEFAULT, ALONE, OPTUNA, REST = "default", "one switch", "optuna", "what is left"
ROUND = 6
"""Points of a round, which are measured beside each other."""
STARTUP = 10
ASKED_AGAIN = 50
"""How often a point is asked for that was not tried yet, before any that is left is taken."""


class Proposer:
    """Gives rounds of points, none twice."""

    def __init__(self, space: Space, seed: int) -> None:
        """Raises ModuleNotFoundError without Optuna."""
        self._space = space
        self._alone = space.one_apart()
        self._seen: set[Point] = set()
        self._study, self._distributions = _study(space, seed)
        self._asked: dict[Point, Any] = {}
        self._size = space.size

    @property
    def exhausted(self) -> bool:
        """Whether every point was proposed."""
        return self._size is not None and len(self._seen) >= self._size

    def next(self, most: int) -> list[tuple[str, Point]]:
        """The next round's points with who proposes them, `most` at most; none if there are no others."""
        return list(self._round(min(most, ROUND)))

    def _round(self, count: int) -> Iterator[tuple[str, Point]]:
        if not self._seen:
            yield self._taken(DEFAULT, self._space.default)
            return
        alone = [point for point in self._alone if point not in self._seen][:count]
        if alone:
            for point in alone:
                yield self._taken(ALONE, point)
            return
        for _ in range(count):
            if (proposed := self._asked_of_optuna()) is not None:
                yield self._taken(OPTUNA, proposed)
            elif (left := self._left()) is not None:
                yield self._taken(REST, left)

    def _taken(self, who: str, point: Point) -> tuple[str, Point]:
        self._seen.add(point)
        return who, point

    def _asked_of_optuna(self) -> Point | None:
        """A point that was not tried yet; what Optuna asks for twice it is told again, so that it looks elsewhere."""
        if self.exhausted:
            return None
        for _ in range(ASKED_AGAIN):
            trial = self._study.ask(self._distributions)
            values = {**self._space.default.to_json(), **trial.params}
            point = self._space.sound(Point.from_json(values))
            if point not in self._seen and point not in self._asked:
                self._asked[point] = trial
                return point
            self._tell_failed(trial)
        return None

    def _left(self) -> Point | None:
        if self._size is None:
            return None
        return next((point for point in self._space.points() if point not in self._seen), None)

    def _tell_failed(self, trial: Any) -> None:
        from optuna.trial import TrialState

        self._study.tell(trial, state=TrialState.FAIL)

    def tell(self, trials: Sequence[Trial]) -> None:
        """What came of a round's points: their time, their bytes and how much they have right, of what was asked."""
        from optuna.trial import TrialState, create_trial

        for trial in trials:
            values = None
            if trial.is_built and trial.right:
                values = [trial.ratio, *map(float, trial.sizes), -trial.em.value]
            asked = self._asked.pop(trial.point, None)
            if asked is not None:
                self._study.tell(asked, values, state=TrialState.COMPLETE if values else TrialState.FAIL)
            elif values is not None:
                params = {name: trial.point[name] for name in self._distributions}
                self._study.add_trial(
                    create_trial(params=params, distributions=self._distributions, values=values)
                )


def _study(space: Space, seed: int) -> tuple[Study, dict[str, Any]]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.TPESampler(seed=seed % (1 << 32), n_startup_trials=STARTUP)
    study = optuna.create_study(directions=["minimize"] * 4, sampler=sampler)
    choices = {
        name: optuna.distributions.CategoricalDistribution(space.values[name]) for name in space.free
    }
    return study, choices
