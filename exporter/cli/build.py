"""The command that builds a bundle's engines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glimmer_export.exporter.cli.bundles import form_reason
from glimmer_export.exporter.cli.choices import TargetOption
from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.lint import COMPILERS, CompilerOption
from glimmer_export.exporter.cli.options import BundleArgument, Json
from glimmer_export.exporter.cli.output import bold, console, print_json
from glimmer_export.exporter.report.visible import visible

if TYPE_CHECKING:
    from glimmer_export.exporter.engines import BatchBound, EngineBuild, EnginePlan
    from glimmer_export.runtime.contract import FormChoice

__all__ = ["build"]


def build(
    bundle: BundleArgument,
    target: TargetOption,
    compiler: CompilerOption = COMPILERS[0],
    force: Annotated[bool, typer.Option("--force", help="Build engines anew that are there already.")] = False,
    as_json: Json = False,
) -> None:
    """Compile a bundle's graphs to engines of TensorRT, kept in the bundle; finished ones are not built again.

    Of a bundle of both forms of cross-attention, the one that is faster on this machine is measured and chosen; for
    `--target cpu`, which needs no engines, that is all.
    """
    require("onnx", "onnxruntime", "pydantic", "yaml")
    from glimmer_export.exporter.config.targets import read_target
    from glimmer_export.exporter.engines import build_engines, choose_form_here

    if read_target(target).tensorrt is None:
        with console(stderr=True).status("Measuring both forms of cross-attention"):
            choice = choose_form_here(bundle, target)
        _print_choice(bundle, choice, as_json=as_json)
        return
    with _progress() as (on_plan, on_graph):
        built = build_engines(
            bundle, target, compiler, force=force, on_plan=on_plan, on_graph=on_graph
        )
    if as_json:
        print_json(_report(built))
    else:
        _print(built)


@contextmanager
def _progress() -> Iterator[tuple[Callable[[EnginePlan], None], Callable[[str], None]]]:
    """What a build is about to do, on stderr, then a bar over its graphs if that is a terminal."""
    from rich.filesize import decimal
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    err = console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, disable=not err.is_terminal) as progress:
        task = progress.add_task("Building", total=None)
        begun = False

        def on_plan(plan: EnginePlan) -> None:
            for name in plan.others:
                err.print(visible(f"engines/{name} is of another version of {plan.key.library}, and stays"))
            for name, reason in plan.because.items():
                err.print(visible(f"{name}: built again, as {reason}"), soft_wrap=True)
            for bound in plan.bounds:
                if bound.most < bound.asked:
                    err.print(visible(_lowered(bound)), soft_wrap=True)
            if plan.compile:
                most, count = decimal(plan.peak_bytes), len(plan.compile)
                err.print(f"Building {count} engines; this takes up to about {most} of this machine's memory")
            progress.update(task, total=len(plan.compile))

        def on_graph(name: str) -> None:
            nonlocal begun
            progress.update(task, advance=int(begun), description=visible(f"Building {name}"))
            begun = True

        yield on_plan, on_graph
        progress.update(task, advance=int(begun))


def _report(built: EngineBuild) -> dict[str, Any]:
    record = asdict(built.record)
    for name, engine in record["engines"].items():
        engine["reused"] = name not in built.plan.compile
        engine["because"] = built.plan.because.get(name)
    bounds = [asdict(bound) for bound in built.plan.bounds]
    return {
        "directory": str(built.directory), **record, "not_measured": built.not_measured,
        "peak_bytes": built.plan.peak_bytes, "batch_bounds": bounds,
    }


def _lowered(bound: BatchBound) -> str:
    from rich.filesize import decimal

    batches = f"Batches of {bound.least} to {bound.asked} {bound.rows}"
    lowered = f"are lowered to at most {bound.most}" if bound.most >= bound.least else "are left out"
    return (
        f"{batches} {lowered}: in {bound.graph} each takes {decimal(bound.row_bytes)}, and {bound.limit} of the target "
        f"leaves {decimal(bound.limit_bytes)}"
    )


def _print_choice(bundle: Path, choice: FormChoice, *, as_json: bool) -> None:
    if as_json:
        print_json({"bundle": str(bundle), "cross_attention": asdict(choice)})
    else:
        console().print(bold(bundle), f"answers with {choice.form} cross-attention, {form_reason(choice)}")


def _print(built: EngineBuild) -> None:
    from rich.filesize import decimal
    from rich.table import Table

    table = Table()
    for column in ("graph", "engine", "seconds", "profiles"):
        table.add_column(column, justify="left" if column == "graph" else "right", no_wrap=True)
    for name, engine in built.record.engines.items():
        seconds = f"{engine.build_seconds:.1f}" if name in built.plan.compile else "kept"
        table.add_row(visible(name), decimal(engine.file.bytes), seconds, str(len(engine.profiles)))
    out, record = console(), built.record
    out.print(table)
    if record.stand_in:
        key = record.key
        out.print(
            f"A stand-in: {key.library} {key.version} cannot build for {record.target} ahead of time; these are for "
            f"compute capability {key.compute_capability}, the nearest that it knows", soft_wrap=True,
        )
    if record.cross_attention is not None:
        why = f" ({visible(built.not_measured)})" if built.not_measured else ""
        out.print(
            f"Cross-attention: {record.cross_attention.form}, {form_reason(record.cross_attention)}{why}",
            soft_wrap=True,
        )
    out.print(
        bold(built.directory), f"has engines of {len(record.engines)} graphs for {record.target}", soft_wrap=True
    )
