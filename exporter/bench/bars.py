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

from glimmer_export.exporter.bench.gated import gated_contenders
from glimmer_export.exporter.bench.labels import contender_label, contenders_of, engine_of
from glimmer_export.exporter.bench.machine import cpu_label, threads_label
from glimmer_export.exporter.bench.readme import require_quiet
from glimmer_export.exporter.bench.roster import OURS
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
from glimmer_export.runtime.contract.records import read_json

__all__ = ["BARS", "Bar", "main", "page_from_runs"]

PAGE = Path("docs/measurements/speed.md")
MAX_PAGE_BYTES = 1 << 20
STAGES = (QUESTION_ENCODER, "fetch", LIVE_STAGE_A, LIVE_STAGE_B, CROSS_KV, DECODER_STEP)
DRAFTS = Path("docs/measurements/draft-decoding.json")
"""Replays of drafts, as tests/demo/draft_replays.py writes them."""
FIDELITY = Path("docs/measurements/fidelity.json")
"""What says whose precision passed the gate on trained models."""
BEFORE = "before_int8"
"""The bundle that is measured as what there was before."""

Figure = Callable[[Run, Sequence[str]], float | None]
"""Of a run and of our contenders whose precision passed the gate."""
Replay = Mapping[str, Any]
"""A trace of drafts replayed, as `bench --draft-trace --json` reports it."""


@dataclass(frozen=True)
class Bar:
    """What must be reached: `figure` at least `least`, or at most `most`; None: the run does not have it."""

    what: str
    figure: Figure
    unit: str
    least: float | None = None
    most: float | None = None
    aim: float | None = None

    def row(self, run: Run, gated: Sequence[str]) -> str:
        """One row of the page's table."""
        found = self.figure(run, gated)
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
    def figure(run: Run, _: Sequence[str]) -> float | None:
        theirs, mine = _median(run, group, peer), _median(run, group, ours)
        return None if theirs is None or mine is None else theirs / mine

    return figure


def _constant(value: float) -> Figure:
    def figure(_run: Run, _gated: Sequence[str]) -> float | None:
        return value

    return figure


def _best_gated(run: Run, gated: Sequence[str], group: str) -> float | None:
    found = [_median(run, group, key) for key in gated]
    return min((value for value in found if value is not None), default=None)


def _best_fid(run: Run) -> float | None:
    """The fastest FiD of five passages, in any engine and precision."""
    contenders = contenders_of(run["best"]) if "best" in run else {}
    found = [times["median_ms"] for times in contenders.values() if "fid" in times["form"] and times["passages"] == 5]
    return min(found, default=None)


def _over_best(theirs: Callable[[Run], float | None]) -> Figure:
    def figure(run: Run, gated: Sequence[str]) -> float | None:
        value, mine = theirs(run), _best_gated(run, gated, "best")
        return None if value is None or mine is None else value / mine

    return figure


def _stage_ms(run: Run, group: str, key: str, names: Sequence[str]) -> float | None:
    """Medians of stages added up; our own contender's stages stand beside it."""
    if group not in run:
        return None
    stages = run[group]["stages"] if key == "ours" else run[group]["peers"].get(key, {}).get("stages")
    return None if stages is None else sum(float(stages[name]["median_ms"]) for name in names if name in stages)


def _ranking(ours: str, cross_encoder: str, names: Sequence[str]) -> Figure:
    def figure(run: Run, _: Sequence[str]) -> float | None:
        theirs, mine = _median(run, "ranking", cross_encoder), _stage_ms(run, "ranking", ours, names)
        return None if theirs is None or mine is None else theirs / mine

    return figure


def _decoding(run: Run, gated: Sequence[str]) -> float | None:
    """Decoding in the fastest gated precision; what the loop around the graphs takes is counted."""
    found = [
        _stage_ms(run, group, key, (CROSS_KV, DECODER_STEP, "decode_loop"))
        for group in run
        if group != "large"
        for key in gated
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

BAR_HEADER = ("| bar | bound | figure | |", "| --- | --- | ---: | --- |")
PRECISIONS = {OURS: "FP32", "int8": "INT8"}
REPLAYS_FIX = "write it with `python -m tests.demo.draft_replays`"
TITLES = {
    "default": "Full precision, and what a bench compares by default",
    "int8": "INT8 in ONNX Runtime",
    "openvino": "OpenVINO",
    "best": "Each at its best, and a small language model",
    "ranking": "Ranking: a cross-encoder, and two rerank layers beside one",
    "large": "Large",
}


def read_replays(path: Path) -> Sequence[Replay]:
    """Replays of drafts; raises OutputError for anything else."""
    found = read_json(path, error=OutputError, fix=REPLAYS_FIX)
    replays = found.get("replays")
    if not isinstance(replays, list) or not all({"source", "batch_size", "bundles"} <= set(one) for one in replays):
        raise OutputError(f"{path}", expected="replays of drafts", found=f"{found!r}"[:80], fix=REPLAYS_FIX)
    return replays


def draft_bars(replays: Sequence[Replay]) -> list[Bar]:
    """A bar for each trace and bundle, of questions one at a time: what drafts save of decoding."""
    return [
        Bar(
            f"plain decoding over drafts, {PRECISIONS.get(name, name)}, {one['source']}",
            _constant(float(bundle["ratio"])), "x", least=1.4,
        )
        for one in replays
        if one["batch_size"] == 1
        for name, bundle in one["bundles"].items()
    ]


def page_from_runs(runs: Sequence[Run], gated: Sequence[str], replays: Sequence[Replay]) -> str:
    """The page; raises OutputError for a run that has a worthless group, or none.

    `gated` are our contenders whose precision passed the gate, which the bars for the best of ours are about.
    """
    lines = [
        "# Speed beside others",
        "",
        (
            "Written by `python -m glimmer_export.exporter.bench.bars` from runs of `python -m "
            "glimmer_export.exporter.bench.speed`, each on a machine with nothing else to do; "
            "[the guide](../guide/bench.md) says how a bench measures. Weights are random, so that no answer here says "
            "what a precision costs: where a bar says gated, ours are those that passed the gate on both worlds of "
            f"[fidelity.md](fidelity.md), {', '.join(gated)}."
        ),
    ]
    for run in runs:
        if not run:
            raise OutputError("the run", expected="groups of benches", found="none", fix="measure one")
        for bench in run.values():
            require_quiet(dict(bench))
        lines += _section(run, gated)
    lines += [
        "",
        "## Drafts",
        "",
        "Of [passage-lookup decoding](draft-decoding.md), replayed at base size, one question at a time.",
        "",
        *BAR_HEADER,
        *(bar.row({}, gated) for bar in draft_bars(replays)),
    ]
    return "\n".join([*lines, ""])


def _section(run: Run, gated: Sequence[str]) -> list[str]:
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
        *BAR_HEADER,
        *(bar.row(run, gated) for bar in BARS),
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
    parser.add_argument("--fidelity", type=Path, default=FIDELITY, help="what says whose precision passed the gate")
    parser.add_argument("--drafts", type=Path, default=DRAFTS, help="replays of drafts")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if the page has another text")
    given = parser.parse_args(arguments)
    try:
        gated, replays = gated_contenders(given.fidelity), read_replays(given.drafts)
        page = page_from_runs([read_run(path) for path in given.runs], gated, replays)
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
