"""A parity report for people: tables on the terminal, and the same with plots as one page."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from glimmer_export.calibration.ranges import RangeTable, TensorRange
from glimmer_export.exporter.parity.figures import Interval
from glimmer_export.exporter.parity.record import report_versions
from glimmer_export.exporter.parity.report import ParityReport, SideName
from glimmer_export.exporter.report.origin import Origin, utc_now
from glimmer_export.exporter.report.page import Page, Picture, Section, html_from_page, write_page
from glimmer_export.exporter.report.svg import histogram_svg, scatter_svg
from glimmer_export.exporter.report.tables import Bar, Cell, ReportTable, Verdict, print_table, times_faster
from glimmer_export.runtime.contract import GateCheck, GateResult

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["html_from_report", "print_report", "write_html"]

EXAMPLES_SHOWN = 5
EXAMPLES_ON_A_PAGE = 200
FULL_SNR_DB = 140.0
"""As long as the longest bar: what float32 sums in another order come to."""
MOST_HISTOGRAMS = 12


def print_report(report: ParityReport, console: Console) -> None:
    """Answers, error by graph, and if there are any: parts, differing answers, the gate."""
    tables = [_answers(report), _graphs(report)]
    if report.attribution is not None:
        tables.append(_attribution(report))
    if report.differences:
        tables.append(_differences(report, EXAMPLES_SHOWN))
    if report.gate is not None:
        tables.append(_gate(report.gate, shout=True))
    for table in tables:
        print_table(table, console)


def write_html(report: ParityReport, path: Path, ranges: RangeTable | None = None, *, command: str = "") -> None:
    """Write the page; raises OutputError if the file cannot be written."""
    write_page(_page(report, ranges, command), path)


def html_from_report(report: ParityReport, ranges: RangeTable | None = None, *, command: str = "") -> str:
    """The page. `ranges` are those that the candidate was calibrated with; `command` is what made the report."""
    return html_from_page(_page(report, ranges, command))


def _page(report: ParityReport, ranges: RangeTable | None, command: str) -> Page:
    return Page(
        f"glimmer-export parity: {Path(report.candidate.path).name}", _facts(report),
        Origin(command, utc_now(), report_versions(report)), list(_sections(report, ranges)),
    )


def _sections(report: ParityReport, ranges: RangeTable | None) -> Iterator[Section]:
    gate = report.gate
    if gate is not None:
        verdict = Verdict(gate.verdict, gate.passed)
        yield Section(f"Gate {gate.name}", tables=[_gate(gate)], verdict=verdict)
    yield Section("Answers", tables=[_answers(report)])
    if report.graphs:
        yield Section.of(_graphs(report))
    if report.attribution:
        yield Section("What each part costs alone", tables=[_attribution(report)])
    if len(report.score_pairs):
        yield Section("Scores", pictures=[Picture(scatter_svg(report.score_pairs))])
    if report.differences:
        median, steps = report.first_difference.margin_median, report.first_difference.steps
        where = ", ".join(f"{count} at step {step}" for step, count in steps.items())
        note = f"First difference: {where}; median margin of the reference there: {_number(median)}."
        table = _differences(report, EXAMPLES_ON_A_PAGE)
        yield Section(table.title, texts=[note], tables=[table], is_text=True)
    if report.samples:
        yield Section.of(_samples(report), is_text=True)
    if ranges is not None:
        yield Section("Widest ranges of the calibration", pictures=list(_histograms(ranges)))


def _facts(report: ParityReport) -> str:
    sides = " against ".join(map(_side, (report.candidate, report.reference)))
    memory = {"store": "the same store", "exact": "memory of its own", "reference_store": "another store"}
    read = memory[report.reference_memory]
    counts = ", ".join(f"{name}: {count}" for name, count in _coverage(report))
    ranks = " and ranks all passages" if report.exact_ranking else ""
    return f"{sides}; questions {counts}; {report.passages} passages; the reference reads {read}{ranks}."


def _side(side: SideName) -> str:
    precisions = ", ".join(sorted({*side.precision.values()}))
    return f"{side.kind} {side.path} ({side.backend}, {precisions})"


def _coverage(report: ParityReport) -> list[tuple[str, int]]:
    """How many questions were asked, how many of them answered, and if there are any, why not."""
    counts = report.coverage
    missing = [
        ("refused", counts.refused), ("no passage found", counts.unretrieved),
        ("answered without a word by both", counts.blank),
    ]  # fmt: skip
    shown = [("asked", counts.asked), ("answered", counts.answered), *(item for item in missing if item[1])]
    repeated = counts.answered - counts.blank - counts.distinct
    return [*shown, ("answered, repetitions", repeated)] if repeated else shown


def _answers(report: ParityReport) -> ReportTable:
    from rich.filesize import decimal

    rows: list[tuple[str, str, str, str]] = []
    for name, metric in (("exact match", report.em), ("token F1", report.f1)):
        difference = _points(metric.delta, metric.interval)
        if metric.reference is None:
            answered = report.coverage.answered
            difference = f"not measured: {'no row has answers' if answered else 'no question was answered'}"
        rows.append((name, _share(metric.reference), _share(metric.candidate), difference))
    gold = report.gold_in_top_m
    rows.append(("gold passage read", _share(gold.reference), _share(gold.candidate), ""))
    if report.mass is not None:
        read = report.passages_read
        rows.append(("passages read", _number(read.reference), _number(read.candidate), f"mass {report.mass:g}"))
    if report.reference.graph_bytes and report.candidate.graph_bytes:
        sizes = (decimal(report.reference.graph_bytes), decimal(report.candidate.graph_bytes))
        rows.append(("graphs", *sizes, f"{report.candidate.graph_bytes / report.reference.graph_bytes:.2f}x"))
    if report.speed is not None:
        rows.append(("speed", "", times_faster(report.speed), ""))
    found = report.log_probability
    both = {
        "answers equal": _share(report.answers_equal),
        "answers equal, of the correct": _share(report.answers_equal_of_correct),
        **(
            {"log-probability of equal answers, nats": "-"} if found is None
            else {
                "log-probability of equal answers, nats, mean difference": f"{found.mean_abs_difference:.2g}",
                "log-probability of equal answers, nats, largest": f"{found.max_abs_difference:.2g}",
                "log-probability of equal answers, SNR dB": _db(found.snr_db),
            }
        ),
        "top-m overlap": _share(report.top_m_overlap),
        "Kendall tau of the scores": _share(report.kendall_tau),
        "scores, SNR dB": "-" if report.score_snr_db is None else _db(report.score_snr_db),
    }  # fmt: skip
    if report.skipped_passages:
        both["passages skipped, without text"] = str(report.skipped_passages)
    if report.truncated_passages:
        both["passages cut to passage_length"] = str(report.truncated_passages)
    both |= {name: str(count) for name, count in _coverage(report)}
    rows += [(name, "", value, "") for name, value in both.items()]
    reference = "torch checkpoint" if report.reference.kind == "checkpoint" else "reference bundle"
    return ReportTable(
        f"Parity on {report.questions} questions ({report.passages} passages)",
        ("", reference, "bundle", "difference, points (95%)"), rows,
    )  # fmt: skip


def _graphs(report: ParityReport) -> ReportTable:
    rows: list[tuple[Cell, ...]] = [
        (
            name, f"{error.max_abs_err:.2e}", f"{error.mean_abs_err:.2e}", _db(error.snr_db), f"{error.cosine:.6f}",
            Bar(min(error.snr_db, FULL_SNR_DB) / FULL_SNR_DB),
        )
        for name, error in report.graphs.items()
    ]  # fmt: skip
    if report.memory_max_abs_err is not None:
        rows.append(("store (codec and encoder)", f"{report.memory_max_abs_err:.2e}", "", "", "", ""))
    columns = ("graph", "largest", "mean", "SNR dB", "cosine", "")
    return ReportTable("Error by graph, on the same inputs", columns, rows)


def _attribution(report: ParityReport) -> ReportTable:
    parts = report.attribution or {}
    costs = {name: part.log_prob_error or 0.0 for name, part in parts.items()}
    most = max((cost for cost in costs.values() if math.isfinite(cost)), default=0.0) or 1.0
    rows = [
        (
            part, _points(effect.em_delta, effect.em_delta_interval), _share(effect.answers_equal),
            _share(effect.top_m_overlap), _nats(effect.log_prob_delta), _nats(effect.log_prob_error),
            "-" if effect.score_snr_db is None else _db(effect.score_snr_db),
            Bar(min(costs[part] / most, 1.0), "cost"),
        )
        for part, effect in parts.items()
    ]  # fmt: skip
    return ReportTable(
        "The reference with one part of the bundle's",
        (
            "part", "exact match, points (95%)", "answers equal", "top-m overlap",
            "log-probability of the answer, nats", "its error", "scores, SNR dB", "",
        ),
        rows, f"costs most: {report.costliest_part or 'none'}; parts that both share are left out",
    )  # fmt: skip


def _differences(report: ParityReport, most: int) -> ReportTable:
    count = report.first_difference.count
    rows = [
        (item.question, str(item.step), _number(item.margin), item.reference, item.candidate)
        for item in report.differences[:most]
    ]
    title = f"{count} answers differ" + ("" if len(rows) == count else f"; the first {len(rows)}")
    return ReportTable(title, ("question", "step", "margin", "reference", "bundle"), rows)


def _samples(report: ParityReport) -> ReportTable:
    rows = [
        (
            sample.question, sample.reference, sample.candidate,
            Verdict("yes", good=True) if sample.equal else Verdict("no", good=False),
        )
        for sample in report.samples
    ]  # fmt: skip
    return ReportTable("Sample answers", ("question", "reference", "bundle", "equal"), rows)


def _gate(gate: GateResult, *, shout: bool = False) -> ReportTable:
    rows = [
        (
            check.name, f"{check.limit:g}", _found(check), "" if check.questions is None else str(check.questions),
            Verdict("ok" if check.passed else "NO", check.passed),
        )
        for check in gate.checks
    ]
    verdict = gate.verdict.upper() if shout and not gate.passed else gate.verdict
    return ReportTable(f"Gate {gate.name}: {verdict}", ("", "limit", "found", "questions", ""), rows)


def _histograms(ranges: RangeTable) -> Iterator[Picture]:
    tensors: list[tuple[str, TensorRange]] = [
        (f"{graph}: {name}", tensor) for graph, group in ranges.graphs.items() for name, tensor in group.items()
    ]
    tensors.sort(key=lambda item: -item[1].amax if math.isfinite(item[1].amax) else -math.inf)
    for name, tensor in tensors[:MOST_HISTOGRAMS]:
        limits = f"{tensor.minimum:.4g} to {tensor.maximum:.4g}, counts on a logarithmic scale"
        yield Picture(histogram_svg(tensor.histogram, -tensor.limit, tensor.limit), (name, limits))


def _share(value: float | None) -> str:
    """A figure from 0 to 1."""
    return "-" if value is None else f"{value:.4f}"


def _points(delta: float | None, interval: Interval | None) -> str:
    """A difference in points with its interval."""
    if delta is None or interval is None:
        return "-"
    return f"{100 * delta:+.2f} ({100 * interval[0]:+.2f} to {100 * interval[1]:+.2f})"


def _found(check: GateCheck) -> str:
    if check.found is None:
        return "not measured"
    return f"{check.found + 0:g}" if float(check.found).is_integer() else f"{check.found:.4f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _nats(value: float | None) -> str:
    """A log-probability's change."""
    return "-" if value is None else f"{value:.2g}"


def _db(value: float) -> str:
    """A ratio in decibel."""
    return "exact" if math.isinf(value) else f"{value:.1f}"
