"""The curves that a report draws, after the GLIMMER paper's figures 2, 3 and 5.

What a model gets right, over the questions that it answers for the same arithmetic; over k at fixed m; over m at fixed
k; and how often the gold passage is among the m. A model has a curve of its own, whose bars are 95% intervals: so have
rerankers of other forms, which are other models.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from glimmer_export.exporter.evaluation.figures import GOLD_IN_M, TITLES
from glimmer_export.exporter.evaluation.report import EvaluationReport, Run
from glimmer_export.exporter.report.svg import Curve, CurvePoint

__all__ = ["Panel", "panels_of"]


@dataclass(frozen=True)
class Panel:
    """One picture: what its curves show, and the names of its axes; `counts`: whole numbers stand across."""

    title: str
    across: str
    up: str
    curves: tuple[Curve, ...]
    counts: bool = True


def panels_of(report: EvaluationReport) -> list[Panel]:
    """Those that the runs allow: over k and over m only where a model was asked with several."""
    runs = report.runs
    figure = next((name for name in TITLES if any(name in run.scores.average for run in runs)), None)
    if figure is None:
        return []
    up = f"{TITLES[figure]}, %" + ("" if len(report.tasks) == 1 else f", mean of {len(report.tasks)} tasks")
    by_cost = _curves(
        runs, figure, lambda run: run.cost.samples_per_tflop, lambda run: _with(run.model, "m", run.cell.m)
    )
    panels = [Panel(f"{TITLES[figure]} by cost", "samples per TFLOP", up, tuple(by_cost), counts=False)]
    by_k = _curves(runs, figure, lambda run: run.cell.k, lambda run: _with(run.model, "m", run.cell.m))
    panels.append(Panel(f"{TITLES[figure]} by k", "k, passages retrieved", up, _lines(by_k)))
    ranking = [run for run in runs if run.cell.m is not None]
    for name in dict.fromkeys((figure, GOLD_IN_M)):
        by_m = _curves(ranking, name, lambda run: run.cell.m or 0, lambda run: _with(run.model, "k", run.cell.k))
        panels.append(Panel(f"{TITLES[name]} by m", "m, passages read", f"{TITLES[name]}, %", _lines(by_m)))
    return [panel for panel in panels if panel.curves]


def _lines(curves: Iterable[Curve]) -> tuple[Curve, ...]:
    """Those of more than a point."""
    return tuple(curve for curve in curves if len(curve.points) > 1)


def _with(model: str, name: str, value: int | None) -> str:
    return model if value is None else f"{model}, {name} {value}"


def _curves(
    runs: Sequence[Run], figure: str, across: Callable[[Run], float], label: Callable[[Run], str]
) -> Iterable[Curve]:
    curves: dict[str, list[CurvePoint]] = {}
    for run in runs:
        if (score := run.scores.average.get(figure)) is not None:
            point = CurvePoint(across(run), 100 * score.value, 100 * score.low, 100 * score.high)
            curves.setdefault(label(run), []).append(point)
    return [Curve(name, tuple(sorted(points, key=lambda point: point.x))) for name, points in curves.items()]
