"""The command that holds a bundle's graphs against a machine's rules."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from typing import Annotated

import typer

from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import BundleArgument, Json
from glimmer_export.exporter.cli.output import console, print_json
from glimmer_export.exporter.report.terminal import text
from glimmer_export.exporter.report.visible import visible

__all__ = ["Compiler", "TargetName", "lint"]


class TargetName(str, Enum):
    """The machines of configs/targets."""

    t4 = "t4"
    jetson_orin_agx = "jetson-orin-agx"
    jetson_orin_nano = "jetson-orin-nano"
    h200 = "h200"
    cpu = "cpu"


class Compiler(str, Enum):
    """NVIDIA's compilers: TensorRT builds on the device, TensorRT-RTX anywhere."""

    tensorrt = "tensorrt"
    tensorrt_rtx = "tensorrt-rtx"


def lint(
    bundle: BundleArgument,
    target: Annotated[TargetName, typer.Option("--target", help="Machine that is to run the graphs.")],
    compiler: Annotated[
        Compiler, typer.Option("--compiler", help="tensorrt-rtx takes no FP32 products for the T4.")
    ] = Compiler.tensorrt,
    as_json: Json = False,
) -> None:
    """Check a bundle's graphs by the rules of a machine; exits with 1 where one is broken."""
    require("onnx", "onnxruntime", "pydantic", "yaml")
    from glimmer_export.exporter.config.targets import read_target
    from glimmer_export.exporter.lint import limits_of, lint_bundle
    from glimmer_export.runtime.bundle import Bundle

    gpu = read_target(target.value).tensorrt
    with console(stderr=True).status("Reading the bundle") as status:
        opened = Bundle.open(bundle)
        findings = lint_bundle(
            opened, None if gpu is None else limits_of(gpu, compiler.value),
            on_graph=lambda name: status.update(text(f"Checking {name}")),
        )
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            console().print(visible(finding.text), soft_wrap=True)
        graphs = f"{len(opened.manifest.graphs)} graphs for {target.value}"
        console().print(f"{graphs}: {len(findings)} findings" if findings else f"{graphs}: nothing found")
    raise typer.Exit(1 if findings else 0)
