"""The command that quantises a bundle."""

from __future__ import annotations

import os
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glimmer_export.exporter.cli.calibrate import Method
from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import BundleArgument, Json, Overwrite
from glimmer_export.exporter.cli.output import bold, console, print_json
from glimmer_export.exporter.report.terminal import text
from glimmer_export.exporter.report.visible import visible

if TYPE_CHECKING:
    from glimmer_export.calibration.quantize import QuantizedGraph

__all__ = ["quantize"]


class Precision(str, Enum):
    """Arithmetic of the graphs: INT8 products in FP32 graphs, FP16 graphs, or INT8 products in FP16 graphs."""

    int8 = "int8"
    fp16 = "fp16"
    int8_fp16 = "int8-fp16"


class QuantizationTarget(str, Enum):
    """What runs the graphs."""

    cpu = "cpu"
    tensorrt = "tensorrt"


class CpuKind(str, Enum):
    """Kinds of CPU, which differ in the fastest INT8."""

    x86_vnni = "x86-vnni"
    x86 = "x86"
    arm = "arm"


def quantize(
    bundle: BundleArgument,
    precision: Annotated[Precision, typer.Option("--precision", help="Arithmetic of the new graphs.")] = Precision.int8,
    target: Annotated[
        QuantizationTarget, typer.Option("--target", help="cpu: ONNX Runtime on a CPU; tensorrt: signed, symmetric.")
    ] = QuantizationTarget.cpu,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Directory to write. Default: BUNDLE-PRECISION-TARGET.")
    ] = None,
    policy: Annotated[
        str, typer.Option("--policy", help="A policy of configs/precision, or a YAML file like them.")
    ] = "int8",
    graphs: Annotated[
        str | None, typer.Option("--graphs", help="Graphs to quantise, separated by commas. Default: all.")
    ] = None,
    keep: Annotated[
        list[str] | None, typer.Option("--keep", help="Products to leave in float: a regular expression on graph/node.")
    ] = None,
    method: Annotated[
        Method | None, typer.Option("--method", help="Calibrator. Default: the one of the bundle's table.")
    ] = None,
    cpu: Annotated[
        CpuKind | None, typer.Option("--cpu", help="Kind of CPU that will answer. Default: this machine's.")
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            "--gpu",
            help="Machine of configs/targets on which the decoder's INT8 has to be faster than FP16. Default: any; "
            "none: INT8 all the same, for the smallest bundle.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a calibrated bundle's graphs INT8, FP16 or both; the result is a bundle of its own."""
    require("onnx", "onnx_ir")
    from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle

    real = Path(os.path.realpath(bundle))  # which a link to itself has too, where `resolve` raises a RuntimeError
    place = output or real.with_name(f"{real.name}-{precision.value}-{target.value}")
    options = QuantizeOptions(
        precision=precision.value, target=target.value, policy=policy,
        graphs=None if graphs is None else tuple(name.strip() for name in graphs.split(",")), keep=tuple(keep or ()),
        method=None if method is None else method.value, cpu=None if cpu is None else cpu.value,
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
    for column in ("graph", "INT8 products", "in float", "residual scale", "FP32 for their range"):
        table.add_column(column, justify="left" if column == "graph" else "right", no_wrap=column == "graph")
    for name, graph in done.items():
        table.add_row(
            visible(name), str(len(graph.int8)), str(len(graph.kept)), f"{graph.residual_scale:g}",
            "\n".join(map(visible, graph.kept_fp32)) or "none",
        )
    console().print(table)
    for name, graph in done.items():
        for note in graph.notes:
            console().print(visible(f"{name}, {note}"))
