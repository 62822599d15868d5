"""What a report of a fault should say of the machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import Json
from glimmer_export.exporter.cli.output import bold, console, print_json
from glimmer_export.exporter.report.terminal import text
from glimmer_export.exporter.report.visible import visible

if TYPE_CHECKING:
    from glimmer_export.exporter.environment import Environment

__all__ = ["env"]


def env(
    register_optimum: Annotated[
        bool, typer.Option("--register-optimum", help="Make `optimum-cli export glimmer` known to optimum first.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show versions, CPU, GPU, and which backends work here or why not: what a report of a fault should say."""
    require("onnx", *(["optimum"] if register_optimum else []))
    from glimmer_export.exporter.environment import describe_environment

    registered = None
    if register_optimum:
        from glimmer_export.exporter.cli.optimum_register import register_with_optimum

        registered = register_with_optimum()
    found = describe_environment()
    if as_json:
        print_json(found.to_json() | ({"registered": str(registered)} if registered else {}))
        return
    if registered is not None:
        console().print("Wrote", bold(registered))
    _print(found)


def _print(found: Environment) -> None:
    from rich.table import Table

    out = console()
    rows = Table(show_header=False)
    rows.add_row("glimmer-export", found.version)
    rows.add_row("Python", f"{found.python}, {found.system}")
    rows.add_row("CPU", f"{found.cpus} CPUs of kind {found.cpu_kind}, BF16 by {found.bf16_instructions}")
    rows.add_row("memory", f"{found.memory_bytes / 2**30:.1f} GiB")
    gpu = found.gpu
    rows.add_row(
        "GPU",
        "no GPU that CUDA shows" if gpu is None
        else visible(f"{gpu.name}, compute capability {gpu.compute_capability}, {gpu.memory_bytes / 2**30:.1f} GiB"),
    )
    for name, number in found.packages.items():
        rows.add_row(name, number)
    out.print(rows)
    backends = Table()
    for column in ("backend", "works", "detail"):
        backends.add_column(column, overflow="fold")
    for state in found.backends:
        works = text("yes", "green") if state.works else text("no", "yellow")
        backends.add_row(state.name, works, visible(state.detail))
    out.print(backends)
