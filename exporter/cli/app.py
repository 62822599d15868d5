"""The commands, gathered."""

from __future__ import annotations

import typer

from glimmer_export.exporter.cli import (
    answers,
    bench,
    build,
    bundles,
    calibrate,
    checkpoints,
    convert,
    cost,
    lint,
    memory,
    parity,
    quantize,
    sensitivity,
)

__all__ = ["app"]

app = typer.Typer(
    name="glimmer-export",
    help="Take trained LUMEN and GLIMMER models to the machines that answer questions with them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("init")(checkpoints.init)
app.command("convert")(convert.convert)
app.command("export")(bundles.export)
app.command("inspect")(bundles.inspect)
app.add_typer(memory.app, name="memory")
app.command("ask")(answers.ask)
app.command("answer")(answers.answer)
app.command("parity")(parity.parity)
app.command("calibrate")(calibrate.calibrate)
app.command("quantize")(quantize.quantize)
app.command("lint")(lint.lint)
app.command("build")(build.build)
app.command("sensitivity")(sensitivity.sensitivity)
app.command("cost")(cost.cost)
app.command("bench")(bench.bench)
app.command("train-demo")(checkpoints.train_demo)
app.command("demo-data")(checkpoints.demo_data)
