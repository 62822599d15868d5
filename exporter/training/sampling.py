"""Which rows, passages and answers a step reads: a pure function of a seed, the step and what was drawn before."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from glimmer_export.exporter.training.rows import TrainingRows
from glimmer_export.runtime.contract import TrainingError

__all__ = ["Distractors", "Draw", "GoldPlace", "Sampler", "micro_batches"]

GoldPlace = Literal["as_retrieved", "among"]
Distractors = Literal["first", "random"]
STEP, EPOCH = 0, 1
"""What a stream of random numbers is for; it stands behind the seed."""


@dataclass(frozen=True, slots=True)
class Draw:
    """A row of a batch: its number, its passages' places in the table, (k,) int32 or fewer, and which answer it has."""

    row: int
    passages: NDArray[np.int32]
    answer: int


class Sampler:
    """Draws batches of rows, each row from a task that is drawn uniformly (GLIMMER paper, section 4.1).

    A task's rows come in a shuffled order, all of them before any comes again. Of a row's answers one is drawn. Its
    passages are the first k as they were retrieved, or k random ones (`distractors`), always in the order of retrieval.
    With `gold` among, a gold passage is one of the k: one that is among the row's candidates and is drawn keeps its
    place in their order; one that stands beyond the first k, or was not retrieved, takes a random place. If a row knows
    no gold passage, those that have an answer stand for it, and without any nothing is forced.

    The demo's rows are those of one task with 10 candidates, of which k are read: `gold` among, random `distractors`.
    """

    def __init__(
        self, rows: TrainingRows, *, seed: int, gold: GoldPlace = "as_retrieved", distractors: Distractors = "first"
    ) -> None:
        self._rows, self._seed, self._gold, self._distractors = rows, seed, gold, distractors
        task = rows.task
        self._of_task = [np.flatnonzero(task == number) for number in range(len(rows.tasks))]
        self._step = 0
        self._draws = [0] * len(rows.tasks)
        self._orders: dict[int, tuple[int, NDArray[np.int64]]] = {}

    def draw(self, batch_size: int, num_retrieved: int, tasks: Sequence[str] | None = None) -> list[Draw]:
        """The next step's rows, all of them, whatever processes and micro batches they are split over.

        `tasks` None: all. Raises TrainingError for a task of which there are no rows.
        """
        numbers = self._numbers(tasks)
        random = default_rng([self._seed, STEP, self._step])
        self._step += 1
        drawn = []
        for task in random.integers(len(numbers), size=batch_size):
            row = self._next(numbers[task])
            answer = int(random.integers(self._rows.num_answers(row)))
            drawn.append(Draw(row, self._passages(row, num_retrieved, random), answer))
        return drawn

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on with the same batches, as plain data."""
        return {"step": self._step, "draws": dict(zip(self._rows.tasks, self._draws, strict=True))}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where `state` was taken; raises ValueError, and changes nothing, if it is of other tasks."""
        step, draws = state.get("step"), state.get("draws")
        if type(step) is not int or not isinstance(draws, dict) or [*draws] != self._rows.tasks:
            raise ValueError(f"draws of other tasks than {', '.join(self._rows.tasks)}")
        self._step, self._draws = step, [int(count) for count in draws.values()]

    def require(self, tasks: Iterable[str]) -> None:
        """Raise TrainingError for a task of which there are no rows."""
        known = self._rows.tasks
        if unknown := [task for task in tasks if task not in known]:
            raise TrainingError(
                f"task {unknown[0]}", expected=f"a task of the rows, {', '.join(known)}", found="no row of it",
                fix="name tasks of the rows, or name their files FILE=TASK",
            )

    def _numbers(self, tasks: Sequence[str] | None) -> list[int]:
        self.require(tasks or ())
        return [self._rows.tasks.index(task) for task in tasks or self._rows.tasks]

    def _next(self, task: int) -> int:
        """The row that comes next in a task."""
        rows = self._of_task[task]
        epoch, place = divmod(self._draws[task], len(rows))
        self._draws[task] += 1
        if task not in self._orders or self._orders[task][0] != epoch:
            self._orders[task] = epoch, default_rng([self._seed, EPOCH, task, epoch]).permutation(rows)
        return int(self._orders[task][1][place])

    def _passages(self, row: int, most: int, random: Generator) -> NDArray[np.int32]:
        candidates = self._rows.candidates[row]
        gold = self._rows.gold[row] if self._gold == "among" else candidates[:0]
        where = np.flatnonzero(np.isin(candidates, gold))
        if self._distractors == "first":
            if not len(gold) or (where < most).any():
                return candidates[:most]
            return _inserted(random.choice(gold), candidates[: most - 1], random)
        if len(gold) and not len(where):
            return _inserted(random.choice(gold), candidates[_places(len(candidates), most - 1, random)], random)
        kept = random.choice(where, min(1, len(where)), replace=False)
        others = np.setdiff1d(np.arange(len(candidates)), kept)
        drawn = others[_places(len(others), most - len(kept), random)]
        places: NDArray[np.int64] = np.sort(np.concatenate([kept, drawn]))
        return candidates[places]


def _places(count: int, most: int, random: Generator) -> NDArray[np.int64]:
    """At most `most` of so many places, rising."""
    places: NDArray[np.int64] = np.sort(random.choice(count, min(most, count), replace=False))
    return places


def _inserted(one: np.int32, others: NDArray[np.int32], random: Generator) -> NDArray[np.int32]:
    place = random.integers(len(others) + 1)
    return np.concatenate([others[:place], [one], others[place:]]).astype(np.int32)


def micro_batches(drawn: Sequence[Draw], size: int, process: int = 0, processes: int = 1) -> list[Sequence[Draw]]:
    """The parts of a step that one of several processes reads: parts of at most `size` rows, every so many-th of them.

    All processes together read each row once. They read equally many parts if their number is a multiple of the parts'.
    """
    parts = [drawn[start : start + size] for start in range(0, len(drawn), size)]
    return parts[process::processes]
