"""What an evaluation found: each model's figures with their intervals, and how far each is from the first model's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.cost import QuestionCost
from glimmer_export.exporter.evaluation.bootstrap import CONFIDENCE, RESAMPLES, SEED, interval, resampled_means
from glimmer_export.exporter.evaluation.figures import FIGURES, GOLD_IN_K, GOLD_IN_M, TITLES
from glimmer_export.exporter.evaluation.grid import Cell, counterpart

__all__ = ["Difference", "EvaluatedModel", "EvaluationReport", "Run", "Score", "Scores", "report_from_figures"]


@dataclass(frozen=True)
class Score:
    """A mean from 0 to 1, or the difference of two, over the `questions` that allow it, and its 95% interval."""

    value: float
    low: float
    high: float
    questions: int

    @property
    def holds_zero(self) -> bool:
        """Whether a difference may be none, as far as these questions tell."""
        return self.low <= 0 <= self.high


@dataclass(frozen=True)
class Scores:
    """Scores by the figure's name, those that were measured: of each task, and the mean over the tasks that have it."""

    average: Mapping[str, Score]
    tasks: Mapping[str, Mapping[str, Score]]

    def to_json(self) -> dict[str, Any]:
        """Plain numbers."""

        def plain(scores: Mapping[str, Score]) -> dict[str, Any]:
            return {name: asdict(score) for name, score in scores.items()}

        return {"average": plain(self.average), "tasks": {task: plain(found) for task, found in self.tasks.items()}}


@dataclass(frozen=True)
class EvaluatedModel:
    """A model under its name in the report; `kind` is `checkpoint` or `bundle`, `own` its own k and m."""

    label: str
    path: str
    kind: str
    architecture: str
    own: Cell

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Run:
    """One model's answers at one k and m.

    `errors` counts the questions that could not be taken, by the error's name, `unretrieved` those for which no passage
    was found; both have no answer, and count as wrong.
    """

    model: str
    cell: Cell
    cost: QuestionCost
    questions: int
    errors: Mapping[str, int]
    unretrieved: int
    scores: Scores

    @property
    def name(self) -> str:
        """The model's label, k and m."""
        return f"{self.model}, {self.cell}"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "model": self.model, **asdict(self.cell),
            "macs": self.cost.macs, "samples_per_tflop": self.cost.samples_per_tflop,
            "paper_samples_per_tflop": self.cost.paper_samples_per_tflop,
            "errors": dict(self.errors), "unretrieved": self.unretrieved, **self.scores.to_json(),
        }  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """One run's scores less another's, `to`, on the same questions."""

    run: Run
    to: Run
    scores: Scores

    def to_json(self) -> dict[str, Any]:
        """Plain data."""

        def named(run: Run) -> dict[str, Any]:
            return {"model": run.model, **asdict(run.cell)}

        return {**named(self.run), "to": named(self.to), **self.scores.to_json()}


@dataclass(frozen=True)
class EvaluationReport:
    """All runs, those of the first model first, and their differences to the first model's.

    `tasks` has the number of questions of each; `passages` how many different ones the questions were given;
    `passage_source` is `given` or what found them. `notes` say what was not measured, and why.
    """

    models: tuple[EvaluatedModel, ...]
    tasks: Mapping[str, int]
    passages: int
    passage_source: str
    runs: tuple[Run, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def questions(self) -> int:
        """Of all tasks."""
        return sum(self.tasks.values())

    def to_json(self) -> dict[str, Any]:
        """Plain data, with stable keys."""
        return {
            "questions": self.questions,
            "tasks": dict(self.tasks),
            "passages": self.passages,
            "passage_source": self.passage_source,
            "bootstrap": {"resamples": RESAMPLES, "confidence": CONFIDENCE, "seed": SEED},
            "models": [model.to_json() for model in self.models],
            "runs": [run.to_json() for run in self.runs],
            "differences": [difference.to_json() for difference in self.differences],
            "notes": list(self.notes),
        }


Answered = tuple[str, Cell, QuestionCost, Mapping[str, int], int]
"""A run without its scores: model, cell, cost, errors, unretrieved."""


def report_from_figures(
    models: Sequence[EvaluatedModel],
    runs: Sequence[Answered],
    figures: Mapping[str, NDArray[np.float64]],
    *,
    passages: int,
    passage_source: str,
    notes: Sequence[str],
) -> EvaluationReport:
    """The report of figures by task, each (runs, questions, FIGURES) float64, NaN where a question allows none."""
    means = {
        task: resampled_means(np.hstack(list(values)), stream=stream).reshape(RESAMPLES, len(runs), len(FIGURES))
        for stream, (task, values) in enumerate(figures.items())
    }
    questions = {task: values.shape[1] for task, values in figures.items()}
    total = sum(questions.values())
    found = [
        Run(model, cell, cost, total, errors, unretrieved, _scores(figures, means, index))
        for index, (model, cell, cost, errors, unretrieved) in enumerate(runs)
    ]
    differences = tuple(
        Difference(found[run], found[to], _scores(figures, means, run, to)) for run, to in _pairs(models, found)
    )
    return EvaluationReport(
        tuple(models), questions, passages, passage_source, tuple(found), differences,
        (*notes, *filter(None, map(_unanswered, found)), *_unmeasured(found[0].scores, figures)),
    )


ByTask = Mapping[str, NDArray[np.float64]]


def _scores(figures: ByTask, means: ByTask, run: int, to: int | None = None) -> Scores:
    """Of a run, or of a run less another."""

    def less(values: NDArray[np.float64]) -> NDArray[np.float64]:
        found: NDArray[np.float64] = values[run] if to is None else values[run] - values[to]
        return found

    by_task, values, counts, resamples = {}, [], [], []
    for task, of_task in figures.items():
        known = ~np.isnan(of_task[run])
        number = known.sum(axis=0)
        with np.errstate(invalid="ignore"):
            value = np.where(known, less(of_task), 0.0).sum(axis=0) / number
        values.append(value)
        counts.append(number)
        resamples.append(less(means[task].transpose(1, 0, 2)))
        by_task[task] = _named(value, number, resamples[-1])
    average = _named(_mean_over(values), np.sum(counts, axis=0), _mean_over(resamples))
    return Scores(average, by_task)


def _mean_over(values: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The mean over tasks, of those that have one."""
    stacked = np.stack(values)
    number = (~np.isnan(stacked)).sum(axis=0)
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = np.nansum(stacked, axis=0) / number
    return mean


def _named(
    values: NDArray[np.float64], counts: NDArray[np.int64], means: NDArray[np.float64]
) -> dict[str, Score]:
    low, high = interval(means)
    return {
        name: Score(float(values[place]), float(low[place]), float(high[place]), int(counts[place]))
        for place, name in enumerate(FIGURES)
        if counts[place]
    }


def _pairs(models: Sequence[EvaluatedModel], runs: Sequence[Run]) -> list[tuple[int, int]]:
    """What is subtracted from what: of each model's run, the first model's of the same k and m, and its own first."""
    first = models[0]
    of_first = [index for index, run in enumerate(runs) if run.model == first.label]
    cells = [runs[index].cell for index in of_first]
    reference = of_first[cells.index(first.own)] if first.own in cells else of_first[0]
    pairs = []
    for index, run in enumerate(runs):
        wanted = [reference]
        if run.model != first.label:
            same = counterpart(run.cell, cells, first.own)
            wanted = [*([] if same is None else [of_first[cells.index(same)]]), reference]
        pairs += [(index, to) for to in dict.fromkeys(wanted) if to != index]
    return pairs


def _unanswered(run: Run) -> str:
    """How many questions a run has no answers for, in words; nothing if it has them all."""
    parts = [f"{count} could not be taken, {name}" for name, count in run.errors.items()]
    parts += [f"for {run.unretrieved} no passage was found"] if run.unretrieved else []
    return f"{run.name}: of {run.questions} questions {'; '.join(parts)}" if parts else ""


def _unmeasured(scores: Scores, figures: Mapping[str, NDArray[np.float64]]) -> list[str]:
    """What no question of a task allows, in words."""
    notes = []
    for task in figures:
        found = scores.tasks[task]
        if "em" not in found:
            names = ", ".join(TITLES[name] for name in ("em", "f1", "accuracy"))
            notes.append(f"{task}: {names} are not measured: no row has answers")
        if GOLD_IN_M not in found:
            names = f"{TITLES[GOLD_IN_M]}, {TITLES[GOLD_IN_K]}"
            notes.append(
                f'{task}: {names} are not measured: no row has "gold_ids", or KILT\'s provenance beside passages that '
                'have a "wikipedia_id"'
            )
    return notes
