"""The commands, gathered in the order in which a model is brought to answer."""

from __future__ import annotations

import warnings
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from glimmer_export.exporter.cli import (
    answers,
    bench,
    build,
    bundles,
    calibrate,
    checkpoints,
    convert,
    cost,
    encoders,
    env,
    evaluate,
    lint,
    memory,
    parity,
    quantize,
    sensitivity,
    serve,
    train,
    triton,
    tune,
)
from glimmer_export.exporter.cli.log import log_to_stderr
from glimmer_export.exporter.report.terminal import be_quiet, console

__all__ = ["app", "command"]

class _InOrder(TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        """The stores' group before the commands that read stores; typer puts groups last."""
        names = super().list_commands(ctx)
        names.insert(names.index("ask"), names.pop(names.index("memory")))
        return names


app = typer.Typer(
    name="glimmer-export",
    cls=_InOrder,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

CHECKPOINTS, BUNDLES, STORES, ANSWERS, MACHINES, DEMO = (
    "Checkpoints", "Bundles: graphs, precision, engines", "Memory stores", "Answers", "Cost, speed, machine", "Demo",
)  # fmt: skip


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        console().print(f"glimmer-export {version('glimmer-export')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[  # noqa: ARG001 - its callback prints it
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    verbose: Annotated[
        int,
        typer.Option("--verbose", "-v", count=True, show_default=False, help="Say on stderr what is done; -vv: more."),
    ] = 0,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no warnings on stderr; errors are still printed.")
    ] = False,
) -> None:
    """Take trained LUMEN and GLIMMER models to the machines that answer questions with them."""
    if quiet:
        be_quiet()
        warnings.simplefilter("ignore")
    log_to_stderr(verbose, quiet=quiet)


app.command("init", rich_help_panel=CHECKPOINTS)(checkpoints.init)
app.command("convert", rich_help_panel=CHECKPOINTS)(convert.convert)
app.command("train", rich_help_panel=CHECKPOINTS)(train.train)
app.command("export", rich_help_panel=BUNDLES)(bundles.export)
app.command("inspect", rich_help_panel=BUNDLES)(bundles.inspect)
app.command("calibrate", rich_help_panel=BUNDLES)(calibrate.calibrate)
app.command("quantize", rich_help_panel=BUNDLES)(quantize.quantize)
app.command("sensitivity", rich_help_panel=BUNDLES)(sensitivity.sensitivity)
app.command("parity", rich_help_panel=BUNDLES)(parity.parity)
app.command("tune", rich_help_panel=BUNDLES)(tune.tune)
app.command("lint", rich_help_panel=BUNDLES)(lint.lint)
app.command("build", rich_help_panel=BUNDLES)(build.build)
app.add_typer(memory.app, name="memory", rich_help_panel=STORES)
app.command("export-encoder", rich_help_panel=STORES)(encoders.export_encoder_command)
app.command("ask", rich_help_panel=ANSWERS)(answers.ask)
app.command("answer", rich_help_panel=ANSWERS)(answers.answer)
app.command("serve", rich_help_panel=ANSWERS)(serve.serve)
app.command("evaluate", rich_help_panel=ANSWERS)(evaluate.evaluate)
app.command("triton", rich_help_panel=ANSWERS)(triton.triton)
app.command("cost", rich_help_panel=MACHINES)(cost.cost)
app.command("bench", rich_help_panel=MACHINES)(bench.bench)
app.command("env", rich_help_panel=MACHINES)(env.env)
app.command("demo-data", rich_help_panel=DEMO)(checkpoints.demo_data)

command = get_command(app)
"""All of them as one, with its options read from the functions once: that is most of what a wrong use takes."""
