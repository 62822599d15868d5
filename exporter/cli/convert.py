"""The command that converts checkpoints of other layouts."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from exporter.cli.extras import require
from exporter.cli.options import Json, Output, Overwrite
from exporter.cli.output import bold, console, print_json

__all__ = ["convert"]


class Layout(str, Enum):
    """Whose layout a checkpoint has."""

    t5x = "t5x"


def convert(
    source: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the checkpoint.")],
    output: Output,
    layout: Annotated[Layout, typer.Option("--from", help="Whose layout DIR has.")],
    config: Annotated[
        Path, typer.Option("--config", help="JSON of what DIR does not say; for t5x, a whole config.json.")
    ],
    names: Annotated[
        Path | None, typer.Option("--map", help="YAML: our prefixes -> T5X's paths, where they are not the defaults.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option("--tokenizer", help="tokenizer.json or spiece.model. Default: the one in DIR.")
    ] = None,
    allow_unused: Annotated[
        list[str] | None,
        typer.Option("--allow-unused", metavar="PATTERN", help="What DIR may hold beside the model. May be repeated."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Turn a trained checkpoint of T5X into one of ours."""
    require("torch", "msgpack", "tensorstore")
    from exporter.convert import convert_from_t5x

    summary = convert_from_t5x(
        source, output, config=config, names=names, tokenizer=tokenizer, allow_unused=allow_unused or (),
        overwrite=overwrite,
    )
    if as_json:
        print_json(summary)
        return
    _show(output, summary)


def _show(output: Path, summary: dict[str, Any]) -> None:
    layers = ", ".join(f"{part} {count}" for part, count in summary["layers"].items())
    console().print(
        f"{bold(output)}: {summary['architecture']} from {escape(summary['source'])}, "
        f"{summary['parameters']:,} parameters; layers: {layers}; "
        f"tokenizer: {'yes' if summary['has_tokenizer'] else 'none, so it can be exported but not asked'}"
    )
    if summary["unused"]:
        console().print(f"left out: {escape(', '.join(summary['unused']))}")
