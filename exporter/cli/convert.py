"""The command that converts checkpoints of other layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glimmer_export.exporter.cli.checkpoints import print_checkpoint
from glimmer_export.exporter.cli.choices import one_of
from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import Json, Output, Overwrite
from glimmer_export.exporter.cli.output import bold, console, print_json, tensor_progress
from glimmer_export.exporter.report.visible import visible

__all__ = ["convert"]

LAYOUTS = ("t5x", "fid", "huggingface")


def convert(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the checkpoint; for t5x, of one step.")],
    output: Output,
    layout: Annotated[str, one_of("--from", LAYOUTS, "Whose layout DIR has.")],
    config: Annotated[
        Path | None, typer.Option("--config", help="JSON: all fields of a config.json for t5x, else those to change.")
    ] = None,
    names: Annotated[
        Path | None, typer.Option("--map", help="YAML: our prefixes -> T5X's paths, if they are not the defaults.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="tokenizer.json or spiece.model. Default: the one in DIR.")
    ] = None,
    allow_unused: Annotated[
        list[str] | None,
        typer.Option("--allow-unused", metavar="PATTERN", help="What of T5X's may be left out. May be repeated."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Turn a trained checkpoint of T5X, of FiD's own code or of Hugging Face into one of ours."""
    require("torch", *(("msgpack", "tensorstore") if layout == "t5x" else ()))
    from glimmer_export.exporter.checkpoint.convert import convert_checkpoint

    with tensor_progress() as on_tensor:
        summary = convert_checkpoint(
            layout, source, output, config=config, names=names, tokenizer=tokenizer,
            allow_unused=allow_unused or (), overwrite=overwrite, on_tensor=on_tensor,
        )
    if as_json:
        print_json(summary)
        return
    if summary["already_complete"]:
        console().print(f"{bold(output)} was already complete")
    print_checkpoint(output, summary)
    if summary["unused"]:
        console().print(f"left out: {visible(', '.join(summary['unused']))}")
