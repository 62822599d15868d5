"""An evaluation for people: tables, and a page with the curves."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from glimmer_export.exporter.evaluation.bootstrap import CONFIDENCE, RESAMPLES
from glimmer_export.exporter.evaluation.figures import FIGURES, GOLD_IN_M, TITLES
from glimmer_export.exporter.evaluation.panels import panels_of
from glimmer_export.exporter.evaluation.report import Difference, EvaluationReport, Run, Score
from glimmer_export.exporter.report.origin import Origin, package_versions, utc_now
from glimmer_export.exporter.report.page import Page, Picture, Section, html_from_page, write_page
from glimmer_export.exporter.report.svg import curves_svg
from glimmer_export.exporter.report.tables import ReportTable, print_table
from glimmer_export.exporter.report.visible import visible

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["html_from_report", "print_report", "write_html"]

MAIN = ("em", GOLD_IN_M)
COMPARED = ("em", "f1", GOLD_IN_M)
"""What a terminal has room for; the page and the JSON have the differences of all."""
TASK_TABLES = 8
"""Runs up to which a terminal shows each one's tasks."""
DIFFERENCE_TABLES = 4
"""Differences up to which a terminal shows those of each task."""
AVERAGE = "average"
POINTS = ("points", "95%", "0 inside")
LIBRARIES = ("glimmer-export", "numpy", "torch", "onnxruntime", "rouge")


def print_report(report: EvaluationReport, console: Console) -> None:
    """Every run on a line, each run's tasks, and the differences to the first model."""
    print_table(_overview(report), console)
    if len(report.runs) <= TASK_TABLES:
        for run in report.runs:
            print_table(_tasks(run), console)
    else:
        console.print(f"{len(report.runs)} runs: the tasks of each are in --html and --json")
    if len(report.differences) <= DIFFERENCE_TABLES:
        for difference in report.differences:
            print_table(_difference(difference, COMPARED), console)
    else:
        for name in MAIN:
            print_table(_differences(report, name), console)
    for note in (*report.notes, _convention()):
        console.print(visible(note))


def write_html(report: EvaluationReport, path: Path, *, command: str = "") -> None:
    """Write the page; raises OutputError if the file cannot be written."""
    write_page(_page(report, command), path)


def html_from_report(report: EvaluationReport, *, command: str = "") -> str:
    """The page. `command` is what made the report."""
    return html_from_page(_page(report, command))


def _page(report: EvaluationReport, command: str) -> Page:
    names = ", ".join(model.label for model in report.models)
    kinds = ", ".join(f"{model.label}: {model.architecture}, {model.kind} {model.path}" for model in report.models)
    tasks = ", ".join(f"{task}: {count}" for task, count in report.tasks.items())
    source = "given with the questions" if report.passage_source == "given" else f"found by {report.passage_source}"
    facts = f"{kinds}. Questions {tasks}; {report.passages} different passages, {source}. {_convention()}"
    origin = Origin(command, utc_now(), package_versions(LIBRARIES))
    return Page(f"glimmer-export evaluate: {names}", facts, origin, list(_sections(report)))


def _sections(report: EvaluationReport) -> Iterator[Section]:
    yield Section("Models", texts=report.notes, tables=[_overview(report)])
    pictures = [Picture(curves_svg(panel.curves, panel.across, panel.up)) for panel in panels_of(report)]
    yield Section("Curves", pictures=pictures)
    for run in report.runs:
        yield Section.of(_tasks(run))
    for difference in report.differences:
        yield Section.of(_difference(difference, FIGURES))


def _convention() -> str:
    return (
        f"In brackets are {CONFIDENCE:.0%} intervals of a paired bootstrap, {RESAMPLES:,} resamples of the questions "
        "of each task."
    )


def _overview(report: EvaluationReport) -> ReportTable:
    names = [name for name in MAIN if any(name in run.scores.average for run in report.runs)]
    rows = [
        (
            run.model, str(run.cell.k), "-" if run.cell.m is None else str(run.cell.m),
            _rate(run.cost.samples_per_tflop), *(_share(run.scores.average.get(name)) for name in names),
        )
        for run in report.runs
    ]  # fmt: skip
    tasks = "" if len(report.tasks) == 1 else f", average over {len(report.tasks)} tasks"
    columns = ("model", "k", "m", "samples per TFLOP", *(TITLES[name] for name in names))
    return ReportTable(f"{report.questions} questions{tasks}", columns, rows)


def _tasks(run: Run) -> ReportTable:
    """A line a score, a column a task: one task has more scores than a terminal has room for columns."""
    columns = _columns(run.scores.tasks, run.scores.average)
    shown = [name for name in FIGURES if any(name in scores for scores in columns.values())]
    counts = (max((score.questions for score in scores.values()), default=0) for scores in columns.values())
    rows = [
        ("questions", *map(str, counts)),
        *((TITLES[name], *(_share(scores.get(name)) for scores in columns.values())) for name in shown),
    ]
    return ReportTable(run.name, ("", *columns), rows)


def _difference(difference: Difference, names: tuple[str, ...]) -> ReportTable:
    columns = _columns(difference.scores.tasks, difference.scores.average)
    rows = [
        (TITLES[name], task, *_points(score))
        for name in names
        for task, scores in columns.items()
        if (score := scores.get(name)) is not None
    ]
    return ReportTable(
        f"{difference.run.name} less {difference.to.name}", ("", "task", *POINTS), rows
    )


def _differences(report: EvaluationReport, name: str) -> ReportTable:
    """One figure's, of all runs."""
    found = [(item, score) for item in report.differences if (score := item.scores.average.get(name)) is not None]
    rows = [(item.run.name, item.to.name, *_points(score)) for item, score in found]
    return ReportTable(f"{TITLES[name]}, differences", ("", "less", *POINTS), rows)


def _points(score: Score) -> tuple[str, str, str]:
    """A difference in points, its interval, and whether 0 is inside."""
    ends = f"{100 * score.low:+.2f} to {100 * score.high:+.2f}"
    return f"{100 * score.value + 0.0:+.2f}", ends, "yes" if score.holds_zero else "no"


def _columns(
    tasks: Mapping[str, Mapping[str, Score]], average: Mapping[str, Score]
) -> dict[str, Mapping[str, Score]]:
    """Every task, and the average if there are several; its name tells it apart from a task's."""
    if len(tasks) == 1:
        return dict(tasks)
    name = AVERAGE
    while name in tasks:
        name = f"({name})"
    return {**tasks, name: average}


def _rate(value: float) -> str:
    """Four digits, without an exponent."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _share(score: Score | None) -> str:
    return "-" if score is None else f"{score.value:.3f} ({score.low:.3f}-{score.high:.3f})"
