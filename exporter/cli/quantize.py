"""The command that quantises a bundle."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glimmer_export.calibration.calibrators import METHODS
from glimmer_export.exporter.cli.choices import one_of
from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import BundleArgument, Json, Overwrite
from glimmer_export.exporter.cli.output import bold, console, print_json
from glimmer_export.exporter.config.read import NAME_OR_FILE, known
from glimmer_export.exporter.report.terminal import text
from glimmer_export.exporter.report.visible import visible
from glimmer_export.runtime.contract.manifest import CPU_KINDS, PRECISIONS, QUANTIZATION_TARGETS

if TYPE_CHECKING:
    from glimmer_export.calibration.quantize import QuantizedGraph

__all__ = ["quantize"]


def quantize(
    bundle: BundleArgument,
    precision: Annotated[
        str, one_of("--precision", (name for name in PRECISIONS if name != "fp32"), "Arithmetic of the new graphs.")
    ] = "int8",
    target: Annotated[
        str, one_of("--target", QUANTIZATION_TARGETS, "cpu: ONNX Runtime on a CPU; tensorrt: signed, symmetric.")
    ] = QUANTIZATION_TARGETS[0],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Directory to write. Default: BUNDLE-PRECISION-TARGET.")
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
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a calibrated bundle's graphs INT8, FP16 or both; the result is a bundle of its own."""
    require("onnx", "onnx_ir")
    from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle

    real = Path(os.path.realpath(bundle))  # which a link to itself has too, where `resolve` raises a RuntimeError
    place = output or real.with_name(f"{real.name}-{precision}-{target}")
    options = QuantizeOptions(
        precision=precision, target=target, policy=policy,
        graphs=None if graphs is None else tuple(name.strip() for name in graphs.split(",")), keep=tuple(keep or ()),
        method=method, cpu=cpu,
        gpu=gpu,
    )
    with console(stderr=True).status("Reading the bundle") as status:
        done = quantize_bundle(
            bundle, place, options, overwrite=overwrite,
            on_graph=lambda name, index, count: status.update(text(f"Quantising {name} ({index + 1} of {count})")),
        )
    if as_json:
        report = {name: {**asdict(graph), "matched": sorted(graph.matched)} for name, graph in done.items()}
        print_json({"bundle": str(place), "graphs": report})
    else:
        _print(done)
        console().print("Wrote", bold(place))


def _print(done: dict[str, QuantizedGraph]) -> None:
    from rich.table import Table

    table = Table()
    for column in ("graph", "INT8 products", "FP16 tables", "in float", "residual scale", "FP32 for their range"):
        table.add_column(column, justify="left" if column == "graph" else "right", no_wrap=column == "graph")
    for name, graph in done.items():
        table.add_row(
            visible(name), str(len(graph.int8)), str(len(graph.half_tables)), str(len(graph.kept)),
            f"{graph.residual_scale:g}", "\n".join(map(visible, graph.kept_fp32)) or "none",
        )
    console().print(table)
    for name, graph in done.items():
        for note in graph.notes:
            console().print(visible(f"{name}, {note}"))
