"""Reports of figures that are known: means, intervals, pairs that are compared, tables, pages and plots."""

from __future__ import annotations

import io
from dataclasses import replace
from itertools import product
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from rich.console import Console

from glimmer_export.exporter.cost import QuestionCost
from glimmer_export.exporter.evaluation.figures import FIGURES
from glimmer_export.exporter.evaluation.grid import Cell
from glimmer_export.exporter.evaluation.panels import panels_of
from glimmer_export.exporter.evaluation.plot import plot_evaluation
from glimmer_export.exporter.evaluation.report import EvaluatedModel, EvaluationReport, report_from_figures
from glimmer_export.exporter.evaluation.show import html_from_report, print_report

HOSTILE = "<img src=x>$x$"
A, B = "a", HOSTILE
CELLS = [Cell(5, 1), Cell(5, 5), Cell(25, 1), Cell(25, 5)]
RIGHT = {"nq": [1, 1, 0, 1], "trex": [1, 0]}


def figures_of(right: list[float], gold: list[float] | None = None) -> np.ndarray:
    """(questions, FIGURES) with exact match and, if given, gold in m alone."""
    values = np.full((len(right), len(FIGURES)), np.nan)
    values[:, FIGURES.index("em")] = right
    if gold is not None:
        values[:, FIGURES.index("gold_in_m")] = gold
    return values


def report_of(cells: list[Cell], *, labels: tuple[str, ...] = (A, B), gold: bool = True) -> EvaluationReport:
    """B is wrong where A is right on the first question of nq; of m = 1 all are wrong on the second."""
    models = [EvaluatedModel(label, f"models/{label}", "bundle", "glimmer", Cell(25, 5)) for label in labels]
    runs = [
        (label, cell, QuestionCost(10**9 * cell.k, 2 * 10**9), {"QuestionError": 1} if label == B else {}, 0)
        for label, cell in product(labels, cells)
    ]
    figures = {}
    for task, right in RIGHT.items():
        by_run = []
        for label, cell in product(labels, cells):
            values = list(map(float, right))
            values[0] -= task == "nq" and label == B
            values[1] *= cell.m != 1
            by_run.append(figures_of(values, values if gold and task == "nq" else None))
        figures[task] = np.stack(by_run)
    return report_from_figures(models, runs, figures, passages=7, passage_source="bm25", notes=["a note"])


def test_means_by_task_and_over_tasks():
    first, second = report_of([Cell(25, 5)]).runs
    assert {task: found["em"].value for task, found in first.scores.tasks.items()} == {"nq": 0.75, "trex": 0.5}
    assert first.scores.average["em"].value == pytest.approx(0.625)  # of the tasks, not of the questions
    assert second.scores.tasks["nq"]["em"].value == 0.5
    assert first.scores.tasks["nq"]["em"].questions == 4
    assert first.scores.average["em"].questions == 6
    assert first.scores.average["gold_in_m"] == replace(first.scores.tasks["nq"]["gold_in_m"], questions=4)
    assert set(first.scores.average) == {"em", "gold_in_m"}


def test_a_difference_is_of_the_same_questions():
    (difference,) = report_of([Cell(25, 5)]).differences
    assert (difference.run.model, difference.to.model) == (B, A)
    of_nq, of_trex = difference.scores.tasks["nq"]["em"], difference.scores.tasks["trex"]["em"]
    assert (of_nq.value, of_nq.low, of_nq.high) == (-0.25, -0.75, 0.0)  # 1 in 4: a resample has it 0 to 3 times of 4
    assert (of_trex.value, of_trex.low, of_trex.high, of_trex.holds_zero) == (0, 0, 0, True)
    assert difference.scores.average["em"].value == pytest.approx(-0.125)


def test_each_run_is_compared_with_its_like_and_with_the_first_models_own():
    pairs = [(item.run.name, item.to.name) for item in report_of(CELLS).differences]
    own = f"{A}, k 25, m 5"
    assert pairs == [
        *((f"{A}, {cell}", own) for cell in CELLS[:3]),
        *((f"{B}, {cell}", f"{A}, {to}") for cell in CELLS[:3] for to in (cell, CELLS[3])),
        (f"{B}, k 25, m 5", own),
    ]


def test_json_has_every_run_with_its_ends():
    report = report_of(CELLS)
    found = report.to_json()
    assert found["questions"] == 6
    assert found["tasks"] == {"nq": 4, "trex": 2}
    assert found["bootstrap"] == {"resamples": 10_000, "confidence": 0.95, "seed": 0}
    assert [(run["model"], run["k"], run["m"]) for run in found["runs"]] == [
        (label, cell.k, cell.m) for label, cell in product((A, B), CELLS)
    ]
    assert found["runs"][2]["samples_per_tflop"] == pytest.approx(1e12 / (25 * 10**9))
    assert set(found["runs"][0]["tasks"]["nq"]["em"]) == {"value", "low", "high", "questions"}
    assert found["differences"][0]["to"] == {"model": A, "k": 25, "m": 5}


def test_what_was_not_measured_and_not_answered_is_said():
    notes = " / ".join(report_of([Cell(25, 5)], gold=False).notes)
    assert "a note" in notes
    assert "nq: gold in m, gold in k are not measured" in notes
    assert f"{B}, k 25, m 5: of 6 questions 1 could not be taken, QuestionError" in notes
    assert "exact match" not in notes


def printed(report: EvaluationReport) -> str:
    shown = io.StringIO()
    print_report(report, Console(file=shown, width=120, markup=False))
    return shown.getvalue()


def test_tables_have_the_tasks_the_average_and_the_differences():
    text = printed(report_of([Cell(25, 5)]))
    assert "6 questions, average over 2 tasks" in text
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line]
    assert next(row for row in rows if row[0] == "exact match")[1:] == [
        "0.750 (0.250-1.000)", "0.500 (0.000-1.000)", "0.625 (0.250-1.000)",
    ]  # fmt: skip
    assert ["exact match", "nq", "-25.00", "-75.00 to +0.00", "yes"] in rows
    assert "95% intervals of a paired bootstrap" in text


def test_a_grid_prints_a_line_a_run_and_a_line_a_difference():
    text = printed(report_of([*CELLS, Cell(40, 5)]))
    assert "10 runs: the tasks of each are in --html and --json" in text
    assert "exact match, differences" in text
    assert "nq" not in text.partition("10 runs")[0]


def test_one_task_needs_no_average():
    report = report_of([Cell(25, 5)], labels=(A,))
    (run,) = report.runs
    of_one = replace(run.scores, tasks={"nq": run.scores.tasks["nq"]})
    one = replace(report, tasks={"nq": 4}, runs=(replace(run, scores=of_one),))
    assert "average" in printed(report)
    assert "average" not in printed(one)


def test_panels_are_those_that_a_grid_allows():
    assert [panel.title for panel in panels_of(report_of([Cell(25, 5)]))] == ["exact match by cost"]
    assert [panel.title for panel in panels_of(report_of([Cell(5, 5), Cell(25, 5)]))] == [
        "exact match by cost", "exact match by k",
    ]  # fmt: skip
    panels = panels_of(report_of(CELLS))
    assert [panel.title for panel in panels] == [
        "exact match by cost", "exact match by k", "exact match by m", "gold in m by m",
    ]  # fmt: skip
    by_m = panels[2]
    assert [curve.label for curve in by_m.curves] == [f"{label}, k {k}" for label in (A, B) for k in (5, 25)]
    assert [point.x for point in by_m.curves[0].points] == [1, 5]
    assert [point.y for point in by_m.curves[0].points] == pytest.approx([50.0, 62.5])


def test_a_page_is_sound_and_names_are_only_names():
    page = html_from_report(report_of(CELLS), command="glimmer-export evaluate a b")
    root = ET.fromstring(page.removeprefix("<!DOCTYPE html>\n"))
    assert len(list(root.iter("svg"))) == 4
    assert "img" not in {element.tag for element in root.iter()}
    assert HOSTILE in "".join(root.itertext())
    headings = [heading.text for heading in root.iter("h2")]
    assert f"{B}, k 5, m 1 less {A}, k 5, m 1" in [heading.strip() for heading in headings]


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_the_same_figures_give_the_same_bytes(tmp_path, ending):
    report = report_of([Cell(5, 5), Cell(25, 5)])
    paths = [tmp_path / f"{name}{ending}" for name in ("one", "two")]
    for path in paths:
        plot_evaluation(report, path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert first.startswith(b"\x89PNG" if ending == ".png" else b"<?xml")
