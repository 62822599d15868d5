"""docs/measurements/speed.md: the bars, and the tables of quiet runs of `exporter.bench.speed`, one a kind of CPU.

`python -m glimmer_export.exporter.bench.bars SPEED.json [SPEED.json ...]` writes the page, or with `--check` says by
its exit code whether it stands there. A run of which one group is worthless is refused.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glimmer_export.exporter.bench.labels import contender_label, contenders_of, engine_of
from glimmer_export.exporter.bench.machine import cpu_label, threads_label
from glimmer_export.exporter.bench.readme import require_quiet
from glimmer_export.exporter.bench.speed import Run, read_run
from glimmer_export.exporter.files.publish import check_file, replace_file
from glimmer_export.exporter.report.tables import times_faster
from glimmer_export.runtime.contract import (
    CROSS_KV,
    DECODER_STEP,
    LIVE_STAGE_A,
    LIVE_STAGE_B,
    QUESTION_ENCODER,
    GlimmerError,
    OutputError,
)
from glimmer_export.runtime.contract.files import read_limited

__all__ = ["BARS", "Bar", "main", "page_from_runs"]

PAGE = Path("docs/measurements/speed.md")
MAX_PAGE_BYTES = 1 << 20
STAGES = (QUESTION_ENCODER, "fetch", LIVE_STAGE_A, LIVE_STAGE_B, CROSS_KV, DECODER_STEP)
ON_THE_DEMO = "`parity --backend openvino --gate demo` on the demo's 200 questions, 30 November 2026"
GATED = {
    "ours": "it is the reference",
    "int8": "[fidelity.md](fidelity.md)",
    "openvino": ON_THE_DEMO,
    "openvino_bf16": ON_THE_DEMO,
}
"""Our contenders whose precision passed the gate on trained models -> where that stands. Random weights show none."""
BEFORE = "before_int8"
"""The bundle that is measured as what there was before."""

Figure = Callable[[Run], float | None]


@dataclass(frozen=True)
class Bar:
    """What must be reached: `figure` at least `least`, or at most `most`; None: the run does not have it."""

    what: str
    figure: Figure
    unit: str
    least: float | None = None
    most: float | None = None
    aim: float | None = None

    def row(self, run: Run) -> str:
        """One row of the page's table."""
        found = self.figure(run)
        bound = f"at least {self.least:g}{self.unit}" if self.least is not None else f"at most {self.most:g}{self.unit}"
        bound += f" (aim {self.aim:g}{self.unit})" if self.aim is not None else ""
        if found is None:
            return f"| {self.what} | {bound} | | not measured |"
        held = found >= self.least if self.least is not None else found <= (self.most or 0.0)
        return f"| {self.what} | {bound} | {found:.3g}{self.unit} | {'held' if held else '**missed**'} |"


def _median(run: Run, group: str, key: str) -> float | None:
    times = contenders_of(run[group]).get(key) if group in run else None
    return None if times is None else float(times["median_ms"])


def _ratio(group: str, peer: str, ours: str) -> Figure:
    def figure(run: Run) -> float | None:
        theirs, mine = _median(run, group, peer), _median(run, group, ours)
        return None if theirs is None or mine is None else theirs / mine

    return figure


def _best_gated(run: Run, group: str) -> float | None:
    found = [_median(run, group, key) for key in GATED]
    return min((value for value in found if value is not None), default=None)


def _best_fid(run: Run) -> float | None:
    """The fastest FiD of five passages, in any engine and precision."""
    contenders = contenders_of(run["best"]) if "best" in run else {}
    found = [times["median_ms"] for times in contenders.values() if "fid" in times["form"] and times["passages"] == 5]
    return min(found, default=None)


def _over_best(theirs: Callable[[Run], float | None]) -> Figure:
    def figure(run: Run) -> float | None:
        value, mine = theirs(run), _best_gated(run, "best")
        return None if value is None or mine is None else value / mine

    return figure


def _stage_ms(run: Run, group: str, key: str, names: Sequence[str]) -> float | None:
    """Medians of stages added up; our own contender's stages stand beside it."""
    if group not in run:
        return None
    stages = run[group]["stages"] if key == "ours" else run[group]["peers"].get(key, {}).get("stages")
    return None if stages is None else sum(float(stages[name]["median_ms"]) for name in names if name in stages)


def _ranking(ours: str, cross_encoder: str, names: Sequence[str]) -> Figure:
    def figure(run: Run) -> float | None:
        theirs, mine = _median(run, "ranking", cross_encoder), _stage_ms(run, "ranking", ours, names)
        return None if theirs is None or mine is None else theirs / mine

    return figure


def _decoding(run: Run) -> float | None:
    """Decoding in the fastest gated precision; what the loop around the graphs takes is counted."""
    found = [
        _stage_ms(run, group, key, (CROSS_KV, DECODER_STEP, "decode_loop"))
        for group in run
        if group != "large"
        for key in GATED
    ]
    return min((value for value in found if value is not None), default=None)


ENGINES = (
    ("ORT FP32", "default", "", "", (1.6, 2.0, 9.0)),
    ("ORT INT8", "int8", "int8", "_int8", (1.5, 1.9, 8.5)),
    ("OpenVINO BF16", "openvino", "openvino_bf16", "_openvino_bf16", (1.4, 1.8, 8.0)),
)
PEERS = (("paper_form", "the paper's form"), ("optimum_fid_k5", "FiD k=5"), ("optimum_fid_k25", "FiD k=25"))
WITH_QUESTION = ("tokenize", QUESTION_ENCODER, "fetch", LIVE_STAGE_A)
BARS = (
    *(
        Bar(f"{label} over ours, {engine}", _ratio(group, peer + suffix, ours or "ours"), "x", least=least)
        for engine, group, ours, suffix, bounds in ENGINES
        for (peer, label), least in zip(PEERS, bounds, strict=True)
    ),
    Bar(
        "the best FiD k=5 of any engine over ours in the best gated precision", _over_best(_best_fid), "x", least=1.8,
        aim=2.5,
    ),
    Bar(
        "INT8 of commit dd04a57 over ours in the best gated precision",
        _over_best(lambda run: _median(run, "best", BEFORE)), "x", least=1.8,
    ),
    *(
        Bar(
            f"the cross-encoder over {label}, {engine}", _ranking(ours or "ours", f"cross_encoder{suffix}", names), "x",
            least,
        )
        for engine, _, ours, suffix, _ in ENGINES
        for label, names, least in (
            ("stage A alone", (LIVE_STAGE_A,), 100), ("question, fetch and stage A", WITH_QUESTION, 60),
        )
    ),
    Bar("decoding 8 tokens in the fastest gated precision", _decoding, " ms", most=160),
)  # fmt: skip

TITLES = {
    "default": "Full precision, and what a bench compares by default",
    "int8": "INT8 in ONNX Runtime",
    "openvino": "OpenVINO",
    "best": "Each at its best, and a small language model",
    "ranking": "Ranking: a cross-encoder, and two rerank layers beside one",
    "large": "Large",
}


def page_from_runs(runs: Sequence[Run]) -> str:
    """The page; raises OutputError for a run that has a worthless group, or none."""
    lines = [
        "# Speed beside others",
        "",
        (
            "Written by `python -m glimmer_export.exporter.bench.bars` from runs of `python -m "
            "glimmer_export.exporter.bench.speed`, each on a machine with nothing else to do; "
            "[the guide](../guide/bench.md) says how a bench measures. Weights are random, so that no answer here says "
            "what a precision costs: where a bar says gated, ours are those that pass the gate on trained models, "
            f"{', '.join(f'{key} ({where})' for key, where in GATED.items())}."
        ),
    ]
    for run in runs:
        if not run:
            raise OutputError("the run", expected="groups of benches", found="none", fix="measure one")
        for bench in run.values():
            require_quiet(dict(bench))
        lines += _section(run)
    return "\n".join([*lines, ""])


def _section(run: Run) -> list[str]:
    bench = next(iter(run.values()))
    settings = bench["settings"]
    lines = [
        "",
        f"## {threads_label(settings['threads'], bench['machine'])}",
        "",
        (
            f"{bench['date'][:10]}. {settings['k']} passages ranked and {settings['m']} read, "
            f"{settings['question_tokens']} + {settings['passage_tokens']} tokens, {settings['answer_tokens']}-token "
            "answers, plain decoding; peers read the passages of their row. Stored bytes are those of a passage's "
            "token kept from before any question."
        ),
        "",
        "| bar | bound | figure | |",
        "| --- | --- | ---: | --- |",
        *(bar.row(run) for bar in BARS),
    ]
    for name, one in run.items():
        lines += _group(name, one)
    return lines


def _group(name: str, bench: Mapping[str, Any]) -> list[str]:
    cpu = cpu_label(bench["machine"])
    of_peers = {key: peer["stages"] for key, peer in bench["peers"].items() if peer["stages"]}
    with_stages = {"ours": bench["stages"], **of_peers}
    present = [stage for stage in STAGES if any(stage in stages for stages in with_stages.values())]
    load, blocks = bench["load"], len(bench["end_to_end"]["block_sizes"])
    return [
        "",
        f"### {TITLES.get(name, name)}",
        "",
        f"| {cpu} | engine | precision | median ms | min ms | cold ms | beside ours | stored bytes a token |",
        "| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
        *(_row(bench, key, times) for key, times in contenders_of(bench).items()),
        "",
        f"| stages, ms, {cpu} | {' | '.join(present)} |",
        f"| --- |{' ---: |' * len(present)}",
        *(
            f"| {_full_name(bench, key)} | "
            + " | ".join(f"{stages[stage]['median_ms']:.1f}" if stage in stages else "" for stage in present)
            + " |"
            for key, stages in with_stages.items()
        ),
        "",
        (
            f"{blocks} blocks each of at least {bench['settings']['block_seconds']:g} s. Others had at most "
            f"{100 * load['foreign_share']:.1f}% of the CPUs, steal was at most {100 * load['steal_share']:.1f}%."
        ),
        "",
        "<!-- checked, not run: long -->",
        "```console",
        f"$ {bench['command']}",
        "```",
    ]


def _row(bench: Mapping[str, Any], key: str, times: Mapping[str, Any]) -> str:
    stored = times["stored_bytes_per_token"]
    cells = (
        contender_label(key, times), engine_of(bench, times), times["precision"].upper(), f"{times['median_ms']:,.1f}",
        f"{times['min_ms']:,.1f}", f"{times['cold_ms']:,.0f}",
        times_faster(1 / bench["ratios"][key]) if key in bench["ratios"] else "",
        "" if stored is None else f"{stored:,.0f}",
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _full_name(bench: Mapping[str, Any], key: str) -> str:
    times = contenders_of(bench)[key]
    return f"{contender_label(key, times)}, {engine_of(bench, times)}, {times['precision'].upper()}"


def main(arguments: list[str] | None = None) -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m glimmer_export.exporter.bench.bars", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="what exporter.bench.speed wrote")
    parser.add_argument("--page", type=Path, default=PAGE)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page has another text")
    given = parser.parse_args(arguments)
    try:
        page = page_from_runs([read_run(path) for path in given.runs])
        if given.check:
            there = read_limited(
                given.page, limit_bytes=MAX_PAGE_BYTES, error=OutputError, subject=f"output {given.page}",
                fix="name a page that is there",
            )  # fmt: skip
            return int(there.decode() != page)
        replace_file(check_file(given.page, given.runs), page.encode())
    except GlimmerError as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
