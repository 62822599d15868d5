"""The command that goes from limits to a bundle and a store."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import ChunkWords, CorpusFormat, Json, Output, Questions
from glimmer_export.exporter.cli.output import command_line, console, print_json, question_progress
from glimmer_export.exporter.cli.ranges import MAX_COUNT, MAX_QUESTIONS, MAX_SECONDS, MAX_SEED, number
from glimmer_export.exporter.config.read import NAME_OR_FILE, known

__all__ = ["tune"]

LARGEST = 1e12


def tune(
    context: typer.Context,
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="Checkpoint directory.")],
    corpus: Annotated[
        list[Path], typer.Option("--corpus", help="Passages to answer from. Repeatable; or a folder of files.")
    ],
    questions: Questions,
    output: Output,
    target: Annotated[
        str, typer.Option("--target", metavar=NAME_OR_FILE, help=f"Machine that will answer: {known('target')}.")
    ] = "cpu",
    latency_ms: Annotated[
        float | None,
        typer.Option("--latency-ms", min=1e-6, max=LARGEST, callback=number, help="Of an answer, at most."),
    ] = None,
    store_gb: Annotated[
        float | None,
        typer.Option("--store-gb", min=1e-9, max=LARGEST, callback=number, help="Of the store, at most; 10^9 bytes."),
    ] = None,
    em_loss: Annotated[
        float | None,
        typer.Option(
            "--em-loss", min=0.0, max=100.0, callback=number,
            help="Points of exact match that may be lost beside the checkpoint's answers, at most.",
        ),
    ] = None,
    trials: Annotated[
        int, typer.Option("--trials", min=1, max=MAX_QUESTIONS, help="Points to try, those of earlier runs included.")
    ] = 40,
    minutes: Annotated[
        float | None,
        typer.Option(
            "--minutes", min=0.0, max=MAX_SECONDS, callback=number,
            help="Begin nothing more of the search after these, of all runs together.",
        ),
    ] = None,
    tried: Annotated[
        list[str] | None,
        typer.Option(
            "--try", metavar="SWITCH=V,...",
            help="Values of a switch to try, beside the default's: codec=int8,pq8x, k=5,10. Repeatable.",
        ),
    ] = None,
    gate: Annotated[
        str, typer.Option("--gate", metavar=NAME_OR_FILE, help=f"What the chosen bundle has to pass: {known('gate')}.")
    ] = "default",
    policy: Annotated[
        str, typer.Option("--policy", metavar=NAME_OR_FILE, help=f"What INT8 is made by: {known('policy')}.")
    ] = "int8",
    held_out: Annotated[
        float,
        typer.Option(
            "--held-out", min=0.01, max=0.99, callback=number, help="Share of the questions that the search never sees."
        ),
    ] = 0.5,
    samples: Annotated[
        int, typer.Option("--samples", min=1, max=MAX_COUNT, help="Questions of a calibration, in even steps.")
    ] = 200,
    sensitivity_samples: Annotated[
        int,
        typer.Option(
            "--sensitivity-samples", min=0, max=MAX_COUNT, help="Questions that order precisions; 0: do not order them."
        ),
    ] = 48,
    sample_passages: Annotated[
        int,
        typer.Option(
            "--sample-passages", min=1, max=MAX_COUNT, help="Of a larger corpus try codecs on a sample of so many."
        ),
    ] = 20_000,
    timed: Annotated[
        int, typer.Option("--timed", min=1, max=MAX_COUNT, help="Questions of a block that is timed.")
    ] = 16,
    corpus_format: CorpusFormat = None,
    chunk_words: ChunkWords = None,
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=MAX_SEED, help="Of what is held out, and of what is proposed.")
    ] = 0,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with the front here.")] = None,
    restart: Annotated[
        bool, typer.Option("--restart", help="Throw an earlier search in the output away and start again.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Search switches of store and bundle for limits on time, bytes and exact match; exits with 1 if they are not met.

    Interrupted, the same command goes on where it stopped. Goals that are left out are as low as can be had.
    """
    require("torch", "onnx", "onnx_ir", "onnxruntime", "optuna", "polygraphy", "yaml")
    from glimmer_export.calibration.questions import question_files, read_questions
    from glimmer_export.exporter.report.page import check_page
    from glimmer_export.exporter.tune import Goals, TuneReport, TuneRequest
    from glimmer_export.exporter.tune import tune as tuned
    from glimmer_export.exporter.tune.show import print_report, write_html

    request = TuneRequest(
        checkpoint, tuple(corpus), tuple(question_files(questions)), output, target,
        Goals(latency_ms, store_gb, em_loss), corpus_format, chunk_words, trials, minutes, seed, held_out, gate, policy,
        tuple(tried or ()), samples, sensitivity_samples, sample_passages, timed, restart,
    )  # fmt: skip
    page = None if html is None else check_page(html, [*request.inputs, output])
    found = tuned(request, read_questions(questions), question_progress)
    if not isinstance(found, TuneReport):
        if as_json:
            print_json({"met": False, "unreachable": [item.to_json() for item in found]})
        else:
            for item in found:
                console().print(item.sentence(), soft_wrap=True)
        raise typer.Exit(1)
    if page is not None:
        write_html(found, page, command=command_line(context))
    if as_json:
        print_json(found.to_json())
    else:
        print_report(found, console())
    if not found.met:
        raise typer.Exit(1)
