"""The command that quantises a bundle."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glimmer_export.calibration.calibrators import METHODS
from glimmer_export.exporter.cli.choices import one_of
from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import (
    GIVEN,
    PASSAGE_SOURCES,
    BundleArgument,
    Json,
    Overwrite,
    Passages,
    Store,
    Threads,
)
from glimmer_export.exporter.cli.output import bold, console, print_json
from glimmer_export.exporter.cli.ranges import MAX_COUNT
from glimmer_export.exporter.config.read import NAME_OR_FILE, known
from glimmer_export.exporter.report.terminal import text
from glimmer_export.exporter.report.visible import visible
from glimmer_export.runtime.contract import ACCURACY_LEVELS, WEIGHT_ALGORITHMS, WEIGHT_BITS, OptionError
from glimmer_export.runtime.contract.manifest import CPU_KINDS, PLAIN_PRECISIONS, QUANTIZATION_TARGETS

if TYPE_CHECKING:
    from glimmer_export.calibration.quantize import QuantizedGraph
    from glimmer_export.exporter.bundle.weight_only import WeightOnlyOptions

__all__ = ["quantize"]


def quantize(
    bundle: BundleArgument,
    precision: Annotated[
        str | None,
        one_of(
            "--precision", PLAIN_PRECISIONS,
            "Arithmetic of the new graphs. Default: int8; with --weight-only fp32, which is for that alone.",
        ),
    ] = None,
    target: Annotated[
        str, one_of("--target", QUANTIZATION_TARGETS, "cpu: ONNX Runtime on a CPU; tensorrt: signed, symmetric.")
    ] = QUANTIZATION_TARGETS[0],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Directory to write. Default: BUNDLE-PRECISION-TARGET, with w4 or w8.")
    ] = None,
    policy: Annotated[
        str, typer.Option("--policy", metavar=NAME_OR_FILE, help=f"What is quantised, and how: {known('policy')}.")
    ] = "int8",
    graphs: Annotated[
        str | None, typer.Option("--graphs", help="Graphs to quantise, separated by commas. Default: all.")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option("--keep", help="Products to leave in float: a regular expression on graph/node.")
    ] = None,
    method: Annotated[
        str | None, one_of("--method", METHODS, "Calibrator. Default: the one of the bundle's table.")
    ] = None,
    cpu: Annotated[
        str | None, one_of("--cpu", CPU_KINDS, "Kind of CPU that will answer. Default: this machine's.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu",
            metavar=NAME_OR_FILE,
            help="Machine on which the decoder's INT8 has to be faster than FP16. Default: any of ours; none: INT8 all "
            f"the same, for the smallest bundle; or {known('target')}.",
        ),
    ] = None,
    weight_only: Annotated[
        str | None,
        one_of(
            "--weight-only", WEIGHT_BITS, "Bits of the decoder's weights, in blocks of 32 (ONNX Runtime's MatMulNBits)."
        ),
    ] = None,
    algorithm: Annotated[
        str | None,
        one_of(
            "--algorithm", WEIGHT_ALGORITHMS,
            f"How --weight-only rounds: gptq asks --questions. Default: {WEIGHT_ALGORITHMS[0]}.",
        ),
    ] = None,
    accuracy_level: Annotated[
        str | None,
        one_of(
            "--accuracy-level", map(str, ACCURACY_LEVELS),
            f"Of --weight-only: 4 multiplies in INT8, 1 in FP32. Default: {ACCURACY_LEVELS[0]}.",
        ),
    ] = None,
    weight_graphs: Annotated[
        str | None,
        typer.Option("--weight-graphs", help="Graphs of --weight-only, separated by commas. Default: the decoder's."),
    ] = None,
    eight_bit: Annotated[
        list[str] | None,
        typer.Option("--eight-bit", help="Products of 8 bits in --weight-only int4: an expression as of --keep."),
    ] = None,
    questions: Annotated[
        list[Path] | None,
        typer.Option("--questions", metavar="FILE", help="For --algorithm gptq: files as `calibrate` reads them."),
    ] = None,
    store: Store = None,
    samples: Annotated[
        int | None,
        typer.Option("--samples", min=1, max=MAX_COUNT, help="Questions for gptq, in even steps. Default: 200."),
    ] = None,
    passages: Passages = PASSAGE_SOURCES[0],
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a calibrated bundle's graphs INT8, FP16 or both, or its weights alone; the result is a bundle of its own."""
    require("onnx", "onnx_ir", *(["onnxruntime"] if weight_only else []))
    from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle

    few_bits = _weight_only(
        weight_only, algorithm, accuracy_level, weight_graphs, eight_bit, questions, store, samples, passages, threads
    )
    precision = precision or ("int8" if weight_only is None else "fp32")
    real = Path(os.path.realpath(bundle))  # which a link to itself has too, where `resolve` raises a RuntimeError
    few = [] if weight_only is None else [f"w{WEIGHT_BITS[weight_only]}"]
    parts = [part for part in (precision, *few) if part != "fp32"]
    place = output or real.with_name("-".join([real.name, *parts, target]))
    options = QuantizeOptions(
        precision=precision, target=target, policy=policy, weight_only=few_bits,
        graphs=None if graphs is None else tuple(name.strip() for name in graphs.split(",")), keep=tuple(keep or ()),
        method=method, cpu=cpu,
        gpu=gpu,
    )
    with console(stderr=True).status("Reading the bundle") as status:
        done = quantize_bundle(
            bundle, place, options, overwrite=overwrite,
            on_graph=lambda name, index, count: status.update(text(f"Quantising {name} ({index + 1} of {count})")),
            on_question=lambda asked, count: status.update(text(f"Asking ({asked} of {count})")),
            inputs=[*([] if store is None else [store]), *(questions or ())],
        )
    if as_json:
        report = {name: {**asdict(graph), "matched": sorted(graph.matched)} for name, graph in done.items()}
        print_json({"bundle": str(place), "graphs": report})
    else:
        _print(done)
        console().print("Wrote", bold(place))


def _weight_only(
    bits: str | None, algorithm: str | None, accuracy_level: str | None, graphs: str | None,
    eight_bit: list[str] | None, questions: list[Path] | None, store: Path | None, samples: int | None, passages: str,
    threads: int | None,
) -> WeightOnlyOptions | None:
    """Raises OptionError for an option that says how, without --weight-only, and what reading the questions does."""
    from glimmer_export.calibration.calibrate import CalibrationOptions
    from glimmer_export.calibration.questions import read_questions
    from glimmer_export.exporter.bundle.weight_only import WeightOnlyOptions

    if bits is None:
        given = {
            "--algorithm": algorithm, "--accuracy-level": accuracy_level, "--weight-graphs": graphs,
            "--eight-bit": eight_bit, "--questions": questions, "--store": store, "--samples": samples,
        }
        for option, value in given.items():
            if value is not None and value != []:
                raise OptionError(option, expected="--weight-only beside it", found="none", fix="leave it out")
        return None
    calibration = CalibrationOptions(given=passages == GIVEN, threads=threads)
    return WeightOnlyOptions(
        bits, algorithm=algorithm or WEIGHT_ALGORITHMS[0], accuracy_level=int(accuracy_level or ACCURACY_LEVELS[0]),
        graphs=None if graphs is None else tuple(name.strip() for name in graphs.split(",")),
        eight_bit=tuple(eight_bit or ()), store=store,
        questions=read_questions(questions) if questions else (),
        calibration=calibration if samples is None else replace(calibration, samples=samples),
    )


def _print(done: dict[str, QuantizedGraph]) -> None:
    from rich.table import Table

    table = Table()
    few = any(graph.blocks for graph in done.values())
    columns = ("graph", "INT8 products", "FP16 tables", "in float", "residual scale", "FP32 for their range")
    for column in (*columns, *(("4 bits", "8 bits") if few else ())):
        table.add_column(column, justify="left" if column == "graph" else "right", no_wrap=column == "graph")
    for name, graph in done.items():
        counts = [str(list(graph.blocks.values()).count(bits)) for bits in ((4, 8) if few else ())]
        table.add_row(
            visible(name), str(len(graph.int8)), str(len(graph.half_tables)), str(len(graph.kept)),
            f"{graph.residual_scale:g}", "\n".join(map(visible, graph.kept_fp32)) or "none", *counts,
        )
    console().print(table)
    for name, graph in done.items():
        for note in graph.notes:
            console().print(visible(f"{name}, {note}"))
