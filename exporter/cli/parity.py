"""The command that compares a bundle with its checkpoint or with another bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import (
    GIVEN,
    PASSAGE_SOURCES,
    BatchSize,
    BundleArgument,
    CompileCache,
    ComputePrecision,
    Json,
    Limit,
    Mass,
    NumRetrieved,
    NumSelected,
    Passages,
    Questions,
    Retrieval,
    Store,
    Threads,
    check_cache,
)
from glimmer_export.exporter.cli.output import bold, command_line, console, print_json, question_progress
from glimmer_export.exporter.config.read import NAME_OR_FILE, config_file, known
from glimmer_export.runtime.contract import CPU_BACKEND, FP32
from glimmer_export.runtime.drafts import MAX_DRAFT_TOKENS

__all__ = ["parity"]


def parity(
    context: typer.Context,
    bundle: BundleArgument,
    questions: Questions,
    checkpoint: Annotated[
        Path | None, typer.Option("--checkpoint", help="Compare with the checkpoint that the bundle was made from.")
    ] = None,
    reference: Annotated[
        Path | None, typer.Option("--reference", metavar="BUNDLE", help="Compare with another bundle of it, no torch.")
    ] = None,
    store: Store = None,
    reference_store: Annotated[
        Path | None, typer.Option("--reference-store", help="What the reference reads. Default: the same store.")
    ] = None,
    passages: Passages = PASSAGE_SOURCES[0],
    retrieval: Retrieval = "bm25",
    exact_memory: Annotated[
        bool, typer.Option("--exact-memory", help="The checkpoint encodes its own FP32 memory: the codec counts too.")
    ] = False,
    exact_ranking: Annotated[
        bool,
        typer.Option("--exact-ranking", help="The reference ranks all passages: a cascade's shortlist counts too."),
    ] = False,
    attribution: Annotated[
        bool, typer.Option("--attribution", help="Swap one part at a time and say what each costs alone.")
    ] = False,
    gate: Annotated[
        str | None,
        typer.Option("--gate", metavar=NAME_OR_FILE, help=f"Exit with 1 if it does not pass: {known('gate')}."),
    ] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write a report with plots here.")] = None,
    backend: Annotated[
        str,
        typer.Option(
            "--backend", help="What runs the bundle's graphs: as for `answer`, or onnxruntime-cpu-fp16-rounded."
        ),
    ] = CPU_BACKEND,
    compute_precision: ComputePrecision = FP32,
    compile_cache: CompileCache = None,
    top_k: NumRetrieved = None,
    top_m: NumSelected = None,
    mass: Mass = None,
    draft_tokens: Annotated[
        int,
        typer.Option(
            "--draft-tokens", min=0, max=MAX_DRAFT_TOKENS,
            help="The bundle guesses so many tokens from the passages read; what it is compared with guesses none.",
        ),
    ] = 0,
    batch_size: BatchSize = 8,
    limit: Limit = None,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Compare a bundle with its checkpoint, or with another bundle: graphs, selection, answers, EM and F1."""
    require("polygraphy", "onnxruntime", *(["torch"] if checkpoint is not None else []))
    from glimmer_export.calibration.questions import question_files, read_questions
    from glimmer_export.exporter.parity import ParityOptions, ParityRequest, run_parity
    from glimmer_export.exporter.parity.options import parity_backend
    from glimmer_export.exporter.parity.show import print_report

    options = ParityOptions(
        given_passages=passages == GIVEN, top_k=top_k, top_m=top_m, mass=mass, draft_tokens=draft_tokens,
        batch_size=batch_size, exact_memory=exact_memory, exact_ranking=exact_ranking,
        reference_store=reference_store, attribution=attribution, threads=threads, retrieval=retrieval,
    )
    rows, files = read_questions(questions, limit), question_files(questions)
    read = (bundle, checkpoint, reference, store, reference_store, *files)
    check_cache(compile_cache, *read, None if gate is None else config_file("gate", gate))
    with parity_backend(
        backend, bundle, threads, compute_precision=compute_precision, compile_cache=compile_cache
    ) as chosen:
        request = ParityRequest(
            bundle, checkpoint, reference, store, options, gate, html, chosen,
            question_files=tuple(files), command=command_line(context),
        )  # fmt: skip
        report = run_parity(request, rows, question_progress)
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report, console())
        if html is not None:
            console().print("Wrote", bold(html))
    if report.gate is not None and not report.gate.passed:
        raise typer.Exit(1)
