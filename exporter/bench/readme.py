"""The guide's performance section, rendered from a bench's JSON.

`python -m glimmer_export.exporter.bench.readme BENCH.json` writes it between the two markers in docs/guide/bench.md,
or with `--check` says by its exit code whether it stands there.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from glimmer_export.exporter.files.publish import check_file, replace_file
from glimmer_export.exporter.report.tables import times_faster
from glimmer_export.runtime.contract import DECODER_STEP, LIVE_STAGE_B, MEMORY_ENCODER, GlimmerError, OutputError
from glimmer_export.runtime.contract.files import read_limited
from glimmer_export.runtime.contract.records import read_json

__all__ = ["BEGIN", "END", "insert_section", "main", "section_from_bench"]

BEGIN = "<!-- bench: begin, written by python -m glimmer_export.exporter.bench.readme -->"
END = "<!-- bench: end -->"
MAX_PAGE_BYTES = 1 << 20
LABELS = {
    "int8": "the same in INT8",
    "paper_form": "GLIMMER in the paper's form (full stage A, cached cross-attention)",
    "hf": "FiD, Hugging Face in torch",
    "optimum": "FiD, exported by optimum, ONNX Runtime",
}


def section_from_bench(bench: dict[str, Any]) -> str:
    """Markdown of one bench: contenders, our stages, and what was measured where. `bench` is the JSON of `--json`."""
    settings, machine = bench["settings"], bench["machine"]
    ours, overhead = bench["end_to_end"], bench["overhead_share"]
    what = (
        f"{bench['model']['source'].capitalize()}, {bench['model']['precision'].upper()}, {settings['k']} passages "
        f"ranked and {settings['m']} read, {settings['question_tokens']} + {settings['passage_tokens']} tokens, "
        f"{settings['answer_tokens']}-token answers, batch of {settings['batch_size']}, {settings['threads']} threads "
        f"of {machine['cpu']}, {bench['date'][:10]}; medians of {settings['repeats']} interleaved runs:"
    )
    ceilings = (
        f"Ceilings measured in the same run: FP32 matrix product {_giga(bench, 'fp32_macs_per_second'):.1f} G "
        f"multiply-adds/s, copy {_giga(bench, 'copy_bytes_per_second'):.1f} GB/s. The command:"
    )
    lines = [
        what,
        "",
        "| | median ms | p95 ms | questions/s | beside ours | peak RSS |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        _contender_row("**glimmer-export**", ours, ""),
        *(
            _contender_row(_label(name, peer), peer, times_faster(1 / bench["ratios"][name]))
            for name, peer in bench["peers"].items()
        ),
        "",
        "| our stage | median ms | share | of its ceiling |",
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


def insert_section(page: str, section: str) -> str:
    """The page with the section between its markers; raises OutputError if it does not have both."""
    head, begin, rest = page.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise OutputError("the page", expected=f"the lines {BEGIN} and {END}", found="not both", fix="put them in")
    return f"{head}{BEGIN}\n{section}\n{END}{tail}"


def main(arguments: list[str] | None = None) -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m glimmer_export.exporter.bench.readme", description=__doc__)
    parser.add_argument("bench", type=Path, help="what `glimmer-export bench --json` printed")
    parser.add_argument("--page", type=Path, default=Path("docs/guide/bench.md"))
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page has another text")
    options = parser.parse_args(arguments)
    try:
        place = None if options.check else check_file(options.page, [options.bench])
        bench = read_json(options.bench, error=OutputError, fix="name what `glimmer-export bench --json` printed")
        old = read_limited(
            options.page, limit_bytes=MAX_PAGE_BYTES, error=OutputError, subject=f"output {options.page}",
            fix="name a page that is there",
        ).decode()
    except GlimmerError as error:
        return _failed(error)
    section = section_from_bench(bench)
    try:
        new = insert_section(old, section)
        if place is not None:
            replace_file(place, new.encode())
    except GlimmerError as error:
        return _failed(error)
    return int(options.check and new != old)


def _failed(error: GlimmerError) -> int:
    sys.stderr.write(f"{type(error).__name__}: {error}\n")
    return 2


def _int8_lines(gains: dict[str, float]) -> list[str]:
    if not gains:
        return []
    words = {
        LIVE_STAGE_B: "stage B", MEMORY_ENCODER: "the memory encoder on passages", DECODER_STEP: "decoder steps",
        "end_to_end": "end to end",
    }
    gained = ", ".join(f"{text} {times_faster(gains[name])}" for name, text in words.items() if name in gains)
    return [f"INT8 against FP32: {gained}; its graphs are {_percent(gains['size'])} of the size.", ""]


def _contender_row(label: str, times: dict[str, Any], ratio: str) -> str:
    peak = times["peak_rss_bytes"]
    size = "" if peak is None else f"{peak / 1e9:.1f} GB"
    return (
        f"| {label} | {times['median_ms']:,.0f} | {times['p95_ms']:,.0f} | {times['questions_per_second']:.2f} "
        f"| {ratio} | {size} |"
    )


def _label(name: str, peer: dict[str, Any]) -> str:
    label = LABELS.get(name) or LABELS.get(name.partition("_")[0], name)
    return label if name in ("int8", "paper_form") else f"{label}, {peer['passages']} passages"


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
