"""The report as one HTML file: nothing is fetched, no script; it is well-formed XML too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

from glimmer_export.calibration.ranges import RangeTable, TensorRange
from glimmer_export.exporter.files.publish import replace_file
from glimmer_export.exporter.parity.report import ParityReport, SideName
from glimmer_export.exporter.parity.show import coverage_rows, db, figure, log_probability_rows, nats, points, share
from glimmer_export.exporter.parity.svg import histogram_svg, scatter_svg
from glimmer_export.exporter.report.visible import visible_lines

__all__ = ["html_from_report", "write_html"]

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e3e7ee }
th:first-child, td:first-child { text-align: left }
td.bar { width: 34%; text-align: left }
.bar div { height: .95rem; border-radius: 2px; background: #1f6feb; min-width: 1px }
.bar .loss { background: #d98a29 }
svg text { font-size: 11px; text-anchor: middle; fill: #56606f } .scatter rect { fill: none; stroke: #e3e7ee }
.scatter line { stroke: #b9c4d6 } .scatter circle, .histogram rect { fill: #1f6feb; fill-opacity: .5 }
.passed { color: #1a7f37 } .failed { color: #b42318; font-weight: bold }
figure { display: inline-block; margin: .5rem; font-size: .8rem } p.note { color: #56606f }
"""
FULL_SNR_DB = 140.0
"""As long as the longest bar: what float32 sums in another order come to."""
MOST_HISTOGRAMS = 12
MAX_ROWS = 200


def write_html(report: ParityReport, path: Path, ranges: RangeTable | None = None) -> None:
    """Write the report; raises OutputError if the file cannot be written."""
    replace_file(path, html_from_report(report, ranges).encode())


def html_from_report(report: ParityReport, ranges: RangeTable | None = None) -> str:
    """The whole file. `ranges` are those that the candidate was calibrated with, for histograms."""
    title = f"glimmer-export parity: {Path(report.candidate.path).name}"
    return visible_lines("\n".join([
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"/>',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f"<p>{_facts(report)}</p>",
        *_gate(report),
        "<h2>Answers</h2>",
        _answers(report),
        *_graphs(report),
        *_attribution(report),
        *_scores(report),
        *_differences(report),
        *(_histograms(ranges) if ranges is not None else []),
        "</body></html>\n",
    ]))  # fmt: skip


def _facts(report: ParityReport) -> str:
    sides = " against ".join(map(_side, (report.candidate, report.reference)))
    memory = {"store": "the same store", "exact": "memory of its own", "reference_store": "another store"}
    read = memory[report.reference_memory]
    counts = ", ".join(f"{name}: {count}" for name, count in coverage_rows(report))
    return f"{sides}; questions {counts}; {report.passages} passages; the reference reads {read}."


def _side(side: SideName) -> str:
    precisions = ", ".join(sorted({*side.precision.values()}))
    return f"{side.kind} <code>{escape(side.path)}</code> ({escape(side.backend)}, {escape(precisions)})"


def _gate(report: ParityReport) -> Iterator[str]:
    if report.gate is not None:
        word = "passed" if report.gate.passed else "failed"
        verdict = report.gate.verdict
        yield f'<h2>Gate {escape(report.gate.name)}: <span class="{word}">{verdict}</span></h2>'
        rows = [
            [
                escape(check.name), f"{check.limit:g}", figure(check),
                "" if check.questions is None else str(check.questions),
                f'<span class="{"passed" if check.passed else "failed"}">{"yes" if check.passed else "no"}</span>',
            ]
            for check in report.gate.checks
        ]  # fmt: skip
        yield _table(["", "limit", "found", "questions", "passed"], rows)


def _answers(report: ParityReport) -> str:
    gold = report.gold_in_top_m
    rows = [
        [name, share(metric.reference), share(metric.candidate), points(metric.delta, metric.interval)]
        for name, metric in (("exact match", report.em), ("token F1", report.f1))
    ]
    rows.append(["gold passage read", share(gold.reference), share(gold.candidate), ""])
    for name, value in (
        ("answers equal", report.answers_equal),
        ("answers equal, of those the reference got right", report.answers_equal_of_correct),
        ("top-m overlap", report.top_m_overlap),
        ("Kendall tau of the scores", report.kendall_tau),
    ):
        rows.append([name, "", share(value), ""])
    rows.extend([name, "", value, ""] for name, value in log_probability_rows(report))
    return _table(["", "reference", "candidate", "difference, points (95%)"], rows)


def _graphs(report: ParityReport) -> Iterator[str]:
    if report.graphs:
        yield "<h2>Error by graph, on the same inputs</h2>"
        rows = [
            [
                escape(name), f"{error.max_abs_err:.2e}", f"{error.mean_abs_err:.2e}", f"{error.cosine:.6f}",
                db(error.snr_db), _bar(min(error.snr_db, FULL_SNR_DB) / FULL_SNR_DB),
            ]
            for name, error in report.graphs.items()
        ]  # fmt: skip
        yield _table(["graph", "largest error", "mean error", "cosine", "SNR dB", ""], rows)


def _attribution(report: ParityReport) -> Iterator[str]:
    parts = report.attribution
    if parts:
        yield "<h2>What each part costs alone</h2>"
        costs = {name: part.log_prob_error or 0.0 for name, part in parts.items()}
        most = max((cost for cost in costs.values() if math.isfinite(cost)), default=0.0) or 1.0
        rows = [
            [
                escape(name), points(part.em_delta, part.em_delta_interval), share(part.answers_equal),
                share(part.top_m_overlap), nats(part.log_prob_delta), nats(part.log_prob_error),
                "-" if part.score_snr_db is None else db(part.score_snr_db),
                _bar(min(costs[name] / most, 1.0), "loss"),
            ]
            for name, part in parts.items()
        ]  # fmt: skip
        columns = ["part", "exact match, points (95%)", "answers equal", "top-m overlap"]
        yield _table([*columns, "log-probability, nats", "its error", "scores, SNR dB", ""], rows)
        yield (
            f'<p class="note">The reference with this part of the candidate\'s; what both share is left out. The '
            "log-probability is of the reference's answer, and the bar of its error; "
            f"{report.costliest_part or 'none'} costs most.</p>"
        )


def _scores(report: ParityReport) -> Iterator[str]:
    if len(report.score_pairs):
        yield "<h2>Scores</h2>"
        yield scatter_svg(report.score_pairs)


def _differences(report: ParityReport) -> Iterator[str]:
    summary = report.first_difference
    if summary.count:
        yield f"<h2>{summary.count} answers differ</h2>"
        median = summary.margin_median
        steps = ", ".join(f"{count} at step {step}" for step, count in summary.steps.items())
        yield f'<p class="note">First difference: {steps}; median margin of the reference there: {_number(median)}.</p>'
        rows = [
            [
                escape(item.question), escape(item.reference), escape(item.candidate), str(item.step),
                _number(item.margin),
            ]
            for item in report.differences[:MAX_ROWS]
        ]  # fmt: skip
        yield _table(["question", "reference", "candidate", "step", "margin"], rows)


def _histograms(ranges: RangeTable) -> Iterator[str]:
    tensors: list[tuple[str, TensorRange]] = [
        (f"{graph}: {name}", tensor) for graph, group in ranges.graphs.items() for name, tensor in group.items()
    ]
    tensors.sort(key=lambda item: -item[1].amax if math.isfinite(item[1].amax) else -math.inf)
    yield "<h2>Widest ranges of the calibration</h2>"
    for name, tensor in tensors[:MOST_HISTOGRAMS]:
        yield (
            f"<figure>{histogram_svg(tensor.histogram)}<figcaption>{escape(name)}<br/>{tensor.minimum:.4g} to "
            f"{tensor.maximum:.4g}, drawn over \u00b1{tensor.limit:.4g}</figcaption></figure>"
        )


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _cell(content: str) -> str:
    return f'<td class="bar">{content}</td>' if content.startswith("<div") else f"<td>{content}</td>"


def _bar(part: float, kind: str = "gain") -> str:
    return f'<div class="{kind}" style="width: {100 * max(part, 0.0):.2f}%"></div>'
