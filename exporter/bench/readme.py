"""The guide's performance section and the README's table, rendered from the JSON of a bench on a quiet machine.

`python -m glimmer_export.exporter.bench.readme BENCH.json` writes each between its two markers in docs/guide/bench.md
and README.md, or with `--check` says by its exit code whether they stand there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from glimmer_export.exporter.bench.labels import contender_label, contenders_of, engine_of
from glimmer_export.exporter.bench.machine import threads_label
from glimmer_export.exporter.files.publish import check_file, replace_file
from glimmer_export.exporter.report.tables import times_faster
from glimmer_export.runtime.contract import DECODER_STEP, LIVE_STAGE_B, MEMORY_ENCODER, GlimmerError, OutputError
from glimmer_export.runtime.contract.files import read_limited
from glimmer_export.runtime.contract.records import read_json

__all__ = [
    "BEGIN", "END", "TABLE_BEGIN", "TABLE_END", "insert_section", "main", "require_quiet", "section_from_bench",
    "table_from_bench",
]  # fmt: skip

BEGIN = "<!-- bench: begin, written by python -m glimmer_export.exporter.bench.readme -->"
END = "<!-- bench: end -->"
TABLE_BEGIN = "<!-- bench table: begin, written by python -m glimmer_export.exporter.bench.readme -->"
TABLE_END = "<!-- bench table: end -->"
PAGES = (Path("docs/guide/bench.md"), Path("README.md"))
MAX_PAGE_BYTES = 1 << 20


def table_from_bench(bench: dict[str, Any]) -> str:
    """Markdown of what was measured and of the contenders. `bench` is the JSON of `--json`.

    Raises OutputError for times that are worthless, or may be.
    """
    require_quiet(bench)
    settings, ours = bench["settings"], bench["end_to_end"]
    what = (
        f"{bench['model']['source'].capitalize()}, {settings['k']} passages "
        f"ranked and {settings['m']} read, {settings['question_tokens']} + {settings['passage_tokens']} tokens, "
        f"{settings['answer_tokens']}-token answers, batch of {settings['batch_size']}, {bench['date'][:10]}. Each had "
        f"{len(ours['block_sizes'])} blocks in turn of questions back to back for at least "
        f"{settings['block_seconds']:g} s, the first of each not counted; cold is the first of all:"
    )
    return "\n".join([
        what,
        "",
        (
            f"| {_machine(bench)} | engine | precision | median ms | min ms | cold ms | questions/s | beside ours "
            "| peak RSS |"
        ),
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
        *(_contender_row(bench, key, times) for key, times in contenders_of(bench).items()),
    ])  # fmt: skip


def section_from_bench(bench: dict[str, Any]) -> str:
    """Markdown of one bench: contenders, our stages, and what was measured where. `bench` is the JSON of `--json`.

    Raises OutputError for times that are worthless, or may be.
    """
    table = table_from_bench(bench)
    ours, overhead, load = bench["end_to_end"], bench["overhead_share"], bench["load"]
    ceilings = (
        f"Ceilings measured in the same run: FP32 matrix product {_giga(bench, 'fp32_macs_per_second'):.1f} G "
        f"multiply-adds/s, copy {_giga(bench, 'copy_bytes_per_second'):.1f} GB/s. Other processes had at most "
        f"{_percent(load['foreign_share'])} of the CPUs meanwhile, steal was at most {_percent(load['steal_share'])}. "
        "The command:"
    )
    lines = [
        table,
        "",
        f"| our stage, {_machine(bench)} | median ms | share | of its ceiling |",
        "| --- | ---: | ---: | --- |",
        *(_stage_row(name, stage) for name, stage in bench["stages"].items() if stage["kind"] == "graph"),
        f"| outside the graphs | {overhead * ours['median_ms']:.1f} | {_percent(overhead)} | |",
        "",
        *_int8_lines(bench["int8_gains"]),
        ceilings,
        "",
        "<!-- checked, not run: long -->",
        "```console",
        f"$ {bench['command']}",
        "```",
    ]
    return "\n".join(lines)


def require_quiet(bench: dict[str, Any]) -> None:
    """Raise OutputError for a bench whose times are worthless, or may be."""
    load = bench.get("load", {})
    if load.get("worthless", True) is not False:
        raise OutputError(
            "the bench", expected="one of a machine that had nothing else to do",
            found="; ".join(load.get("reasons", ["one that does not say"])), fix="measure again on a quiet machine",
        )


def _machine(bench: dict[str, Any]) -> str:
    return threads_label(bench["settings"]["threads"], bench["machine"])


def insert_section(page: str, bench: dict[str, Any]) -> str:
    """The page with section and table between their markers; raises OutputError if it has neither pair."""
    found = False
    for first, last, text in ((BEGIN, END, section_from_bench), (TABLE_BEGIN, TABLE_END, table_from_bench)):
        head, begin, rest = page.partition(first)
        _, end, tail = rest.partition(last)
        if begin and end:
            page, found = f"{head}{first}\n{text(bench)}\n{last}{tail}", True
    if not found:
        raise OutputError(
            "the page", expected=f"the lines {BEGIN} and {END}, or {TABLE_BEGIN} and {TABLE_END}",
            found="no such pair", fix="put them in",
        )
    return page


def main(arguments: list[str] | None = None) -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m glimmer_export.exporter.bench.readme", description=__doc__)
    parser.add_argument("bench", type=Path, help="what `glimmer-export bench --json` printed")
    parser.add_argument("--page", type=Path, action="append", help=f"default: {' and '.join(map(str, PAGES))}")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page has another text")
    options = parser.parse_args(arguments)
    try:
        bench = read_json(options.bench, error=OutputError, fix="name what `glimmer-export bench --json` printed")
        pages = [_Page(page, bench, options) for page in options.page or PAGES]
        for page in () if options.check else pages:
            replace_file(page.place, page.new.encode())
    except GlimmerError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    return int(options.check and any(page.new != page.old for page in pages))


class _Page:
    """One page with its old text and its new one; where it goes is looked at before anything is written."""

    def __init__(self, path: Path, bench: dict[str, Any], options: argparse.Namespace) -> None:
        self.place = path if options.check else check_file(path, [options.bench])
        self.old = read_limited(
            path, limit_bytes=MAX_PAGE_BYTES, error=OutputError, subject=f"output {path}",
            fix="name a page that is there",
        ).decode()  # fmt: skip
        self.new = insert_section(self.old, bench)


def _int8_lines(gains: dict[str, float]) -> list[str]:
    if not gains:
        return []
    words = {
        LIVE_STAGE_B: "stage B", MEMORY_ENCODER: "the memory encoder on passages", DECODER_STEP: "decoder steps",
        "end_to_end": "end to end",
    }
    gained = ", ".join(f"{text} {times_faster(gains[name])}" for name, text in words.items() if name in gains)
    return [f"INT8 against FP32: {gained}; its graphs are {_percent(gains['size'])} of the size.", ""]


def _contender_row(bench: dict[str, Any], key: str, times: dict[str, Any]) -> str:
    peak = times["peak_rss_bytes"]
    cells = (
        contender_label(key, times), engine_of(bench, times), times["precision"].upper(), f"{times['median_ms']:,.0f}",
        f"{times['min_ms']:,.0f}", f"{times['cold_ms']:,.0f}", f"{times['questions_per_second']:.2f}",
        times_faster(1 / bench["ratios"][key]) if key in bench["ratios"] else "",
        "" if peak is None else f"{peak / 1e9:.1f} GB",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _stage_row(name: str, stage: dict[str, Any]) -> str:
    ceiling = "copy" if stage["bound"] == "memory" else "FP32 product"
    share = f"{_percent(stage['ceiling_share'])} of the {ceiling}"
    return f"| {name} | {stage['median_ms']:.1f} | {_percent(stage['share'])} | {share} |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def _giga(bench: dict[str, Any], name: str) -> float:
    return float(bench["ceilings"][name]) / 1e9


if __name__ == "__main__":
    sys.exit(main())
