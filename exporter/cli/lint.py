"""The command that holds a bundle's graphs against a machine's rules."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from glimmer_export.exporter.cli.choices import TargetOption, one_of
from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import BundleArgument, Json
from glimmer_export.exporter.cli.output import console, print_json
from glimmer_export.exporter.report.terminal import text
from glimmer_export.exporter.report.visible import visible
from glimmer_export.runtime.contract.engine_record import ENGINE_LIBRARIES

__all__ = ["COMPILERS", "CompilerOption", "lint"]

COMPILERS = tuple(name.replace("_", "-") for name in ENGINE_LIBRARIES)
CompilerOption = Annotated[
    str,
    one_of(
        "--compiler", COMPILERS,
        "tensorrt builds on the device itself, tensorrt-rtx ahead of time anywhere, without FP32 products for the T4.",
    ),
]


def lint(
    bundle: BundleArgument,
    target: TargetOption,
    compiler: CompilerOption = COMPILERS[0],
    as_json: Json = False,
) -> None:
    """Check a bundle's graphs by the rules of a machine; exits with 1 if one is broken."""
    require("onnx", "onnxruntime", "pydantic", "yaml")
    from glimmer_export.exporter.config.read import config_label
    from glimmer_export.exporter.config.targets import read_target
    from glimmer_export.exporter.lint import limits_of, lint_bundle
    from glimmer_export.runtime.bundle import Bundle

    gpu = read_target(target).tensorrt
    with console(stderr=True).status("Reading the bundle") as status:
        opened = Bundle.open(bundle)
        findings = lint_bundle(
            opened, None if gpu is None else limits_of(gpu, compiler),
            on_graph=lambda name: status.update(text(f"Checking {name}")),
        )
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            console().print(visible(finding.text), soft_wrap=True)
        label = visible(config_label("target", target))
        graphs = f"{len(opened.manifest.graphs)} graphs for {label}"
        console().print(f"{graphs}: {len(findings)} findings" if findings else f"{graphs}: nothing found")
    raise typer.Exit(1 if findings else 0)
