"""The command that calibrates a bundle."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glimmer_export.calibration.calibrators import METHODS
from glimmer_export.exporter.cli.choices import one_of
from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import (
    GIVEN,
    PASSAGE_SOURCES,
    BackendName,
    BundleArgument,
    Json,
    Passages,
    Questions,
    Store,
    Threads,
)
from glimmer_export.exporter.cli.output import bold, console, print_json, print_warnings, question_progress
from glimmer_export.exporter.cli.ranges import MAX_COUNT, MAX_PASSAGES
from glimmer_export.exporter.report.visible import visible

if TYPE_CHECKING:
    from glimmer_export.calibration.calibrate import Calibration

__all__ = ["calibrate"]


def calibrate(
    bundle: BundleArgument,
    questions: Questions,
    store: Store = None,
    samples: Annotated[
        int, typer.Option("--samples", min=1, max=MAX_COUNT, help="Questions to run, in even steps over the file.")
    ] = 200,
    method: Annotated[
        str, one_of("--method", METHODS, "How `quantize` gets amax from the ranges unless told otherwise.")
    ] = METHODS[0],
    passages: Passages = PASSAGE_SOURCES[0],
    passages_per_question: Annotated[
        int,
        typer.Option(
            "--passages-per-question", min=1, max=MAX_PASSAGES, help="The most that each graph is seen with."
        ),
    ] = 5,
    threads: Threads = None,
    backend: BackendName = "onnxruntime-cpu",
    as_json: Json = False,
) -> None:
    """Run questions through a bundle's FP32 graphs and write the range of every tensor into the bundle."""
    require("onnx", "onnx_ir", "onnxruntime")
    from glimmer_export.calibration.calibrate import CalibrationOptions
    from glimmer_export.calibration.questions import read_questions
    from glimmer_export.exporter.bundle.calibrate import calibrate_bundle

    rows = read_questions(questions)
    options = CalibrationOptions(
        samples=samples, method=method, given=passages == GIVEN,
        passages_per_question=passages_per_question, threads=threads, backend=backend,
    )
    with question_progress("Calibrating", min(samples, len(rows))) as advance:
        calibration = calibrate_bundle(bundle, store, rows, options, inputs=questions, advance=advance)
    if as_json:
        print_json(calibration.to_json())
    else:
        _print(calibration, bundle)


def _print(calibration: Calibration, bundle: Path) -> None:
    from rich.table import Table

    out, table = console(), Table()
    for column in ("graph", "tensors", "largest amax", "tensor", "FP16 headroom"):
        table.add_column(column, justify="left" if column in ("graph", "tensor") else "right", no_wrap=True)
    for graph, row in calibration.by_graph().items():
        table.add_row(graph, str(row["tensors"]), *_widest(row))
    out.print(table)
    print_warnings(calibration.table.warnings)
    if calibration.skipped_passages:
        out.print(f"{calibration.skipped_passages} passages without text were skipped")
    out.print(bold(bundle), f"has the ranges of {calibration.table.samples} questions")


def _widest(row: dict[str, Any]) -> tuple[str, str, str]:
    if row["tensor"] is None:
        return "-", "-", "-"
    headroom = row["fp16_headroom"]
    return f"{row['amax']:.4g}", visible(row["tensor"]), "-" if headroom is None else f"{headroom:.3g}x"
