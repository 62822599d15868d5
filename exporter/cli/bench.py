"""The command that measures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import Json
from glimmer_export.exporter.cli.output import bold, console, print_json
from glimmer_export.exporter.cli.ranges import (
    MAX_COUNT,
    MAX_PASSAGES,
    MAX_QUESTIONS,
    MAX_SECONDS,
    MAX_SEED,
    MAX_THREADS,
    MAX_TOKENS,
    number,
)
from glimmer_export.exporter.config.read import NAME_OR_FILE, known
from glimmer_export.exporter.report.terminal import text
from glimmer_export.exporter.report.visible import visible
from glimmer_export.runtime.contract import OptionError

if TYPE_CHECKING:
    from glimmer_export.exporter.bench import BenchOptions

__all__ = ["bench"]


def bench(
    random: Annotated[
        str | None, typer.Option("--random", metavar=NAME_OR_FILE, help=f"Random weights of a size: {known('size')}.")
    ] = None,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="A checkpoint of your own, of the architecture glimmer.")
    ] = None,
    k: Annotated[int, typer.Option("--top-k", "-k", max=MAX_PASSAGES, help="Passages ranked.")] = 25,
    m: Annotated[int, typer.Option("--top-m", "-m", max=MAX_PASSAGES, help="Passages read.")] = 5,
    question_tokens: Annotated[
        int, typer.Option("--question-tokens", max=MAX_TOKENS, help="Tokens, EOS included.")
    ] = 48,
    passage_tokens: Annotated[
        int, typer.Option("--passage-tokens", max=MAX_TOKENS, help="Tokens, EOS included.")
    ] = 304,
    answer_tokens: Annotated[
        int,
        typer.Option("--answer-tokens", max=MAX_TOKENS, help="Tokens that every contender decodes, EOS or not."),
    ] = 8,
    threads: Annotated[
        int | None,
        typer.Option("--threads", min=1, max=MAX_THREADS, help="CPU threads of every contender. Default: all CPUs."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", max=MAX_QUESTIONS, help="Questions of one run.")] = 1,
    repeats: Annotated[int, typer.Option("--repeats", max=MAX_COUNT, help="Blocks of runs of each contender.")] = 5,
    warmup: Annotated[int, typer.Option("--warmup", max=MAX_COUNT, help="Runs of each block that do not count.")] = 1,
    block_seconds: Annotated[
        float,
        typer.Option(
            "--block-seconds", min=0, max=MAX_SECONDS, callback=number, help="What counts of a block, at the least."
        ),
    ] = 3.0,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds", min=0, max=MAX_SECONDS, callback=number,
            help="Begin no further block of each if all blocks together would take longer.",
        ),
    ] = None,
    peers: Annotated[
        str,
        typer.Option(
            "--peers",
            help="With commas: int8, openvino, paper-form, rerank-layers-N, hf-fid-kN, optimum-fid-kN, llm-kN, "
            "llm-kv-kN, cross-encoder, with -int8, -bf16, -openvino or -openvino-bf16 behind; or none.",
        ),
    ] = "int8,paper-form,hf-fid-k5,hf-fid-k25",
    bundle: Annotated[
        list[str] | None,
        typer.Option("--bundle", metavar="NAME=DIR", help="Another bundle of the same checkpoint, beside ours."),
    ] = None,
    peak_rss: Annotated[
        bool, typer.Option("--peak-rss/--no-peak-rss", help="Run each once more in a process of its own, for its peak.")
    ] = True,
    store: Annotated[
        bool, typer.Option("--store/--no-store", help="Time encoding passages, and reading them in every codec.")
    ] = True,
    prepare: Annotated[
        bool, typer.Option("--prepare", help="Only export what is not in --work yet; nothing is measured.")
    ] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, max=MAX_SEED, help="Of weights, passages and questions.")] = 0,
    work: Annotated[
        Path | None, typer.Option("--work", help="Keep here what is exported, for the next bench of the same model.")
    ] = None,
    draft_trace: Annotated[
        Path | None,
        typer.Option(
            "--draft-trace",
            help="Time nothing but a recorded trace of drafts, replayed by our graphs beside plain decoding.",
        ),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a report with a bar per stage here.")] = None,
    as_json: Json = False,
) -> None:
    """Time whole questions beside peers of the same weights, stage by stage, against what this machine can do."""
    require("torch", "onnx", "onnx_ir", "onnxscript", "onnxruntime", "polygraphy")
    from glimmer_export.exporter.bench import BenchOptions, prepare_bench, run_bench
    from glimmer_export.exporter.bench.options import bundle_peers, peer_names
    from glimmer_export.exporter.bench.report import check_html_target, write_html
    from glimmer_export.exporter.files.publish import check_apart
    from glimmer_export.exporter.report.progress import step_bar

    options = BenchOptions(
        random=random, checkpoint=checkpoint, k=k, m=m, question_tokens=question_tokens,
        passage_tokens=passage_tokens, answer_tokens=answer_tokens, threads=threads, batch_size=batch_size,
        repeats=repeats, warmup=warmup, block_seconds=block_seconds, seconds=seconds, peers=peer_names(peers),
        bundles=bundle_peers(bundle or ()), peak_rss=peak_rss, store=store, seed=seed, work=work,
    )  # fmt: skip
    options.check()
    traces = [] if draft_trace is None else [draft_trace]
    place = check_html_target(html, [checkpoint, work, *traces, *(path for _, path in options.bundles)])
    if draft_trace is not None:
        if work is not None:
            check_apart(work, traces)
        _replay(options, draft_trace, html, as_json=as_json)
        return
    if prepare:
        with step_bar() as notify:
            made = prepare_bench(options, notify)
        console().print("Prepared", bold(made))
        return
    with step_bar() as notify:
        report = run_bench(options, notify)
    if as_json:
        print_json(report.to_json())
        if report.load.sentence:
            console(stderr=True).print(text("warning", "yellow"), visible(report.load.sentence))
    else:
        report.print(console())
    if html is not None and place is not None:
        write_html(report, place)
        if not as_json:
            console().print("Wrote", bold(html))


def _replay(options: BenchOptions, draft_trace: Path, html: Path | None, *, as_json: bool) -> None:
    from glimmer_export.exporter.bench.draft_replay import replay_trace
    from glimmer_export.exporter.bench.draft_trace import read_trace
    from glimmer_export.exporter.report.progress import step_bar

    if html is not None:
        raise OptionError(
            "--html", expected="no report of a replayed trace", found=str(html), fix="leave it out, or --draft-trace"
        )
    trace = read_trace(draft_trace)
    with step_bar() as notify:
        report = replay_trace(options, trace, notify)
    if as_json:
        print_json(report.to_json())
    else:
        report.print(console())
