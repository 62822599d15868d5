"""The report as one HTML file: nothing is fetched, no script, a bar per contender and per stage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from glimmer_export.exporter.bench.report import (
    BenchReport,
    ContenderTimes,
    StageTimes,
    ceiling_text,
    megabytes,
    percent,
)
from glimmer_export.exporter.files.publish import Inputs, check_file, replace_file
from glimmer_export.exporter.report.visible import visible_lines

__all__ = ["check_html_target", "html_from_report", "write_html"]

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #1c2430 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #e3e7ee; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
td.bar { width: 38%; text-align: left }
.bar div { height: .95rem; border-radius: 2px; background: #b9c4d6; min-width: 1px }
.bar .ours { background: #1f6feb } .bar .graph { background: #1f6feb } .bar .host { background: #d98a29 }
code { background: #f2f4f8; padding: .1rem .3rem } p.note { color: #56606f }
"""


def check_html_target(path: Path | None, inputs: Inputs = ()) -> Path | None:
    """Where the page goes; raises OutputError, before anything is measured, as `check_file` does."""
    return None if path is None else check_file(path, inputs)


def write_html(report: BenchReport, path: Path) -> None:
    """Write the report; raises OutputError if the file cannot be written."""
    replace_file(path, html_from_report(report).encode())


def html_from_report(report: BenchReport) -> str:
    """The whole file, which is well-formed XML too."""
    settings, machine = report.settings, report.machine
    title = f"glimmer-export bench: {report.model['source']}"
    facts = (
        f"{settings['k']} passages ranked, {settings['m']} read; {settings['question_tokens']} + "
        f"{settings['passage_tokens']} tokens, {settings['answer_tokens']}-token answers; batch of "
        f"{settings['batch_size']}; {settings['threads']} threads; {settings['repeats']} interleaved runs after "
        f"{settings['warmup']} of warm-up. {machine['cpu']}, {machine['cpus']} CPUs, load "
        f"{machine['load_average']:.2f} at the start; {report.date}."
    )
    note = (
        f"Orange is outside the graphs: {percent(report.end_to_end.overhead_share)} of end to end. A stage bound by "
        "memory is held against the copy, the others against the FP32 product."
    )
    paper_form = report.peers.get("paper_form")
    rates = report.ceilings
    ceilings = [
        ("FP32 matrix product", f"{rates.fp32_macs_per_second / 1e9:.1f} G multiply-adds/s"),
        ("INT8 matrix product", f"{rates.int8_macs_per_second / 1e9:.1f} G multiply-adds/s"),
        ("copy", f"{rates.copy_bytes_per_second / 1e9:.1f} GB/s"),
    ]
    return visible_lines("\n".join([
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8"/>',
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(title)}</h1>",
        f"<p>{escape(facts)}</p><p><code>{escape(report.command)}</code></p>",
        "<h2>From end to end</h2>",
        _contender_table(report),
        "<h2>Our stages</h2>",
        _stage_table(report.stages),
        f'<p class="note">{escape(note)}</p>',
        *(["<h2>Stages in the paper's form</h2>", _stage_table(paper_form.stages)] if paper_form else []),
        "<h2>Ceilings of this machine, measured in the same run</h2>",
        _table(["", "rate"], [[escape(name), escape(rate)] for name, rate in ceilings]),
        "<h2>Versions</h2>",
        _table(["", "version"], [[escape(name), escape(value)] for name, value in report.versions.items()]),
        "</body></html>\n",
    ]))  # fmt: skip


def _contender_table(report: BenchReport) -> str:
    contenders: dict[str, ContenderTimes] = {"ours": report.end_to_end, **report.peers}
    slowest = max(times.median_ms for times in contenders.values())
    rows = [
        [
            escape(name), f"{times.median_ms:.1f}", f"{times.p95_ms:.1f}", f"{times.questions_per_second:.2f}",
            f"{report.ratios[name]:.2f}x" if name in report.ratios else "", megabytes(times.peak_rss_bytes),
            _bar(times.median_ms / slowest, "ours" if name == "ours" else "peer"),
        ]
        for name, times in contenders.items()
    ]  # fmt: skip
    return _table(["", "median ms", "p95 ms", "questions/s", "ours is faster by", "peak RSS MB", ""], rows)


def _stage_table(stages: Mapping[str, StageTimes] | None) -> str:
    stages = stages or {}
    longest = max((stage.median_ms for stage in stages.values()), default=0.0)
    rows = [
        [
            escape(name), f"{stage.median_ms:.2f}", f"{stage.p95_ms:.2f}", percent(stage.share),
            escape(ceiling_text(stage)), _bar(stage.median_ms / longest, stage.kind),
        ]
        for name, stage in stages.items()
    ]  # fmt: skip
    return _table(["stage", "median ms", "p95 ms", "share", "of its ceiling", ""], rows)


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table of cells that are HTML already; a cell that holds a bar is a column of its own."""
    head = "".join(f"<th>{escape(column)}</th>" for column in columns)
    body = "".join("<tr>" + "".join(_cell(cell) for cell in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(content: str) -> str:
    return f'<td class="bar">{content}</td>' if content.startswith("<div") else f"<td>{content}</td>"


def _bar(share: float, kind: str) -> str:
    return f'<div class="{kind}" style="width: {100 * max(share, 0.0):.2f}%"></div>'
