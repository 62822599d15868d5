"""Which points are tried, in rounds: the default, each switch alone, what of that pays together, then Optuna's.

Optuna's pruners know one objective only, so that it proposes and no more: what is dropped, `halving` decides. The same
journal gives the same proposals: the sampler is seeded, and is told the journal's figures in the journal's order.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from glimmer_export.exporter.tune.space import Point, Space
from glimmer_export.exporter.tune.trials import Trial

if TYPE_CHECKING:
    from optuna.study import Study

__all__ = ["ALONE", "DEFAULT", "OPTUNA", "REST", "TOGETHER", "Proposer"]

DEFAULT, ALONE, TOGETHER, OPTUNA, REST = "default", "one switch", "what pays together", "optuna", "what is left"
ROUND = 6
"""Points of a round, which are measured beside each other."""
STARTUP = 10
PAYS = 0.98
"""Of the default's time, store and bundle as a product, what a value has to be below to pay."""
CHANGED = 4
"""Switches of a point that is drawn."""
ASKED_AGAIN = 50
"""How often a point is asked for that was not tried yet, before any that is left is taken."""


class Proposer:
    """Gives rounds of points, none twice."""

    def __init__(self, space: Space, seed: int) -> None:
        """Raises ModuleNotFoundError without Optuna."""
        self._space = space
        self._alone = space.one_apart()
        self._seen: set[Point] = set()
        self._seed = seed
        self._study, self._distributions = _study(space, seed)
        self._asked: dict[Point, Any] = {}
        self._told: list[Trial] = []
        self._together: list[Point] | None = None
        self._size = space.size

    @property
    def exhausted(self) -> bool:
        """Whether every point was proposed."""
        return self._size is not None and len(self._seen) >= self._size

    def next(self, most: int) -> list[tuple[str, Point]]:
        """The next round's points with who proposes them, `most` at most; none if there are no others."""
        return list(self._round(min(most, ROUND))) if most > 0 else []

    def _round(self, count: int) -> Iterator[tuple[str, Point]]:
        if not self._seen:
            yield self._taken(DEFAULT, self._space.default)
            return
        alone = [point for point in self._alone if point not in self._seen][:count]
        if alone:
            for point in alone:
                yield self._taken(ALONE, point)
            return
        if self._together is None:
            self._together = together(self._space, self._told)
        fitting = [point for point in self._together if point not in self._seen][:count]
        if fitting:
            for point in fitting:
                yield self._taken(TOGETHER, point)
            return
        for _ in range(count):
            if (proposed := self._asked_of_optuna()) is not None:
                yield self._taken(OPTUNA, proposed)
            elif (left := self._left()) is not None:
                yield self._taken(REST, left)

    def pass_over(self, points: Sequence[Point]) -> None:
        """Propose none of these, which came from elsewhere."""
        values = self._space.values
        self._seen |= {
            point for point in points if all(value in values[name] for name, value in point.to_json().items())
        }

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
        """Of a space that can be counted the next point of all; else one drawn, so that a search does not stand still.

        What is drawn is the default with a few other values.
        """
        if self._size is not None:
            return next((point for point in self._space.points() if point not in self._seen), None)
        random = np.random.default_rng([self._seed, len(self._seen)])
        while True:
            point = self._space.default
            for name in random.choice(self._space.free, size=min(CHANGED, len(self._space.free)), replace=False):
                values = self._space.values[str(name)]
                point = point.having(str(name), values[int(random.integers(len(values)))])
            if (point := self._space.sound(point)) not in self._seen:
                return point

    def _tell_failed(self, trial: Any) -> None:
        from optuna.trial import TrialState

        self._study.tell(trial, state=TrialState.FAIL)

    def tell(self, trials: Sequence[Trial]) -> None:
        """What came of a round's points: their time, their bytes and how much they have right, of what was asked."""
        from optuna.trial import TrialState, create_trial

        self._told += trials
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


def together(space: Space, told: Sequence[Trial]) -> list[Point]:
    """The default with the best value of the switch that pays most, of the two that do, and so on.

    What pays is less time, store or bundle, as a product, of a value that was not dropped and does not surely lose
    exact match beside the default, which is the first of what was told.
    """
    best: dict[str, tuple[float, Trial]] = {}
    default = told[0]
    for trial in told[1:]:
        names = trial.point.differs(space.default)
        if len(names) != 1 or trial.dropped or not trial.is_built or trial.less(default.right).high < 0:
            continue
        sizes = zip(trial.sizes, default.sizes, strict=True)
        cost = trial.ratio * math.prod(own / other for own, other in sizes)
        if cost < PAYS and (names[0] not in best or cost < best[names[0]][0]):
            best[names[0]] = cost, trial
    point, found = space.default, []
    for name, (_, trial) in sorted(best.items(), key=lambda item: (item[1][0], item[1][1].number)):
        point = space.sound(point.having(name, trial.point[name]))
        found.append(point)
    return found[1:]


def _study(space: Space, seed: int) -> tuple[Study, dict[str, Any]]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)  # of `multivariate`
        sampler = optuna.samplers.TPESampler(seed=seed % (1 << 32), n_startup_trials=STARTUP, multivariate=True)
    study = optuna.create_study(directions=["minimize"] * 4, sampler=sampler)
    choices = {
        name: optuna.distributions.CategoricalDistribution(space.values[name]) for name in space.free
    }
    return study, choices
