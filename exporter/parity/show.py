"""A parity report as tables on the terminal."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from glimmer_export.exporter.parity.figures import Interval
from glimmer_export.exporter.parity.report import ParityReport
from glimmer_export.exporter.report.visible import visible
from glimmer_export.runtime.contract import GateCheck

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["coverage_rows", "db", "figure", "log_probability_rows", "nats", "points", "print_report", "share"]

EXAMPLES_SHOWN = 5


def print_report(report: ParityReport, console: Console) -> None:
    """Answers, error by graph, and if there are any: parts, differing answers, the gate."""
    console.print(_answers(report))
    console.print(_graphs(report))
    if report.attribution is not None:
        console.print(_attribution(report))
    if report.differences:
        console.print(_differences(report))
    if report.gate is not None:
        console.print(_gate(report))


def coverage_rows(report: ParityReport) -> list[tuple[str, int]]:
    """How many questions were asked, how many of them answered, and if there are any, why not."""
    counts = report.coverage
    missing = [
        ("refused", counts.refused), ("no passage found", counts.unretrieved),
        ("answered without a word by both", counts.blank),
    ]  # fmt: skip
    shown = [("asked", counts.asked), ("answered", counts.answered), *(item for item in missing if item[1])]
    repeated = counts.answered - counts.blank - counts.distinct
    return [*shown, ("answered, repetitions", repeated)] if repeated else shown


def log_probability_rows(report: ParityReport) -> list[tuple[str, str]]:
    """Mean and largest difference of an answer's log-probability; a dash if there is none to compare."""
    found = report.log_probability
    if found is None:
        return [("log-probability of equal answers, nats", "-")]
    return [
        ("log-probability of equal answers, nats, mean difference", f"{found.mean_abs_difference:.2g}"),
        ("log-probability of equal answers, nats, largest", f"{found.max_abs_difference:.2g}"),
    ]


def share(value: float | None) -> str:
    """A figure from 0 to 1."""
    return "-" if value is None else f"{value:.4f}"


def points(delta: float | None, interval: Interval | None) -> str:
    """A difference in points with its interval."""
    if delta is None or interval is None:
        return "-"
    return f"{100 * delta:+.2f} ({100 * interval[0]:+.2f} to {100 * interval[1]:+.2f})"


def figure(check: GateCheck) -> str:
    """What a check found."""
    if check.found is None:
        return "not measured"
    return f"{check.found + 0:g}" if float(check.found).is_integer() else f"{check.found:.4f}"


def nats(value: float | None) -> str:
    """A log-probability's change."""
    return "-" if value is None else f"{value:.2g}"


def db(value: float) -> str:
    """A ratio in decibel."""
    return "exact" if math.isinf(value) else f"{value:.1f}"


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title)
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place else "left", overflow="fold")
    return table


def _answers(report: ParityReport) -> Table:
    from rich.filesize import decimal

    reference = "torch checkpoint" if report.reference.kind == "checkpoint" else "reference bundle"
    table = _table(f"Parity on {report.questions} questions ({report.passages} passages)", "", reference, "bundle")
    table.add_column("difference, points (95%)", justify="right")
    for name, metric in (("exact match", report.em), ("token F1", report.f1)):
        difference = points(metric.delta, metric.interval)
        if metric.reference is None:
            answered = report.coverage.answered
            difference = f"not measured: {'no row has answers' if answered else 'no question was answered'}"
        table.add_row(name, share(metric.reference), share(metric.candidate), difference)
    gold = report.gold_in_top_m
    table.add_row("gold passage read", share(gold.reference), share(gold.candidate), "")
    if report.reference.graph_bytes and report.candidate.graph_bytes:
        sizes = [decimal(report.reference.graph_bytes), decimal(report.candidate.graph_bytes)]
        table.add_row("graphs", *sizes, f"{report.candidate.graph_bytes / report.reference.graph_bytes:.2f}x")
    if report.speed is not None:
        table.add_row("speed", "1.00x", f"{report.speed:.2f}x", "")
    table.add_row("answers equal", "", share(report.answers_equal), "")
    table.add_row("answers equal, of the correct", "", share(report.answers_equal_of_correct), "")
    for name, value in log_probability_rows(report):
        table.add_row(name, "", value, "")
    table.add_row("top-m overlap", "", share(report.top_m_overlap), "")
    table.add_row("Kendall tau of the scores", "", share(report.kendall_tau), "")
    if report.skipped_passages:
        table.add_row("passages skipped, without text", "", str(report.skipped_passages), "")
    if report.truncated_passages:
        table.add_row("passages cut to passage_length", "", str(report.truncated_passages), "")
    table.add_section()
    for name, count in coverage_rows(report):
        table.add_row(name, "", str(count), "")
    return table


def _graphs(report: ParityReport) -> Table:
    table = _table("Error by graph, on the same inputs", "graph", "largest", "mean", "SNR dB", "cosine")
    for name, error in report.graphs.items():
        table.add_row(
            visible(name), f"{error.max_abs_err:.2e}", f"{error.mean_abs_err:.2e}", db(error.snr_db),
            f"{error.cosine:.6f}",
        )
    if report.memory_max_abs_err is not None:
        table.add_row("store (codec and encoder)", f"{report.memory_max_abs_err:.2e}", "", "", "")
    return table


def _attribution(report: ParityReport) -> Table:
    table = _table(
        "The reference with one part of the bundle's", "part", "exact match, points (95%)", "answers equal",
        "top-m overlap", "log-probability of the answer, nats", "its error", "scores, SNR dB",
    )  # fmt: skip
    for part, effect in (report.attribution or {}).items():
        delta = points(effect.em_delta, effect.em_delta_interval)
        table.add_row(
            part, delta, share(effect.answers_equal), share(effect.top_m_overlap), nats(effect.log_prob_delta),
            nats(effect.log_prob_error), "-" if effect.score_snr_db is None else db(effect.score_snr_db),
        )
    table.caption = f"costs most: {report.costliest_part or 'none'}; parts that both share are left out"
    return table


def _differences(report: ParityReport) -> Table:
    count = report.first_difference.count
    title = f"{count} answers differ; the first {min(count, EXAMPLES_SHOWN)}"
    table = _table(title, "question", "step", "margin", "reference", "bundle")
    for item in report.differences[:EXAMPLES_SHOWN]:
        margin = "-" if item.margin is None else f"{item.margin:.3f}"
        table.add_row(visible(item.question), str(item.step), margin, visible(item.reference), visible(item.candidate))
    return table


def _gate(report: ParityReport) -> Table:
    assert report.gate is not None
    verdict = report.gate.verdict if report.gate.passed else report.gate.verdict.upper()
    table = _table(f"Gate {visible(report.gate.name)}: {verdict}", "", "limit", "found", "questions", "")
    for check in report.gate.checks:
        questions = "" if check.questions is None else str(check.questions)
        word = "ok" if check.passed else "NO"
        table.add_row(visible(check.name), f"{check.limit:g}", figure(check), questions, word)
    return table
