"""The command on sentence encoders: export-encoder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from glimmer_export.exporter.cli.choices import one_of
from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import Json, Output, Overwrite
from glimmer_export.exporter.cli.output import bold, console, print_json
from glimmer_export.exporter.cli.ranges import MAX_TOKENS

__all__ = ["export_encoder_command", "usable_encoder"]

POOLINGS = ("mean", "cls", "max")


def export_encoder_command(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="Directory of a Hugging Face or sentence-transformers encoder.")
    ],
    output: Output,
    pooling: Annotated[
        str | None, one_of("--pooling", POOLINGS, "Where no modules.json says it. Default: mean.")
    ] = None,
    normalise: Annotated[
        bool | None,
        typer.Option("--normalise/--no-normalise", help="To length 1, where no modules.json says it. Default: no."),
    ] = None,
    query_prefix: Annotated[
        str | None, typer.Option("--query-prefix", help="Before a question. Default: the directory's prompt, or none.")
    ] = None,
    passage_prefix: Annotated[
        str | None,
        typer.Option("--passage-prefix", help="Before a passage. Default: the directory's prompt, or none."),
    ] = None,
    max_length: Annotated[
        int | None,
        typer.Option("--max-length", min=1, max=MAX_TOKENS, help="Tokens of a text. Default: what the directory says."),
    ] = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Weights by channel, inputs as they come: a quarter of the size.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Export a sentence encoder for `memory index --encoder`, and compare its vectors with torch's."""
    _require()
    from rich.filesize import decimal

    from glimmer_export.exporter.encoders import EncoderChoices, export_encoder

    choices = EncoderChoices(pooling, normalise, query_prefix, passage_prefix, max_length)
    with console(stderr=True).status("Exporting the encoder"):
        report = export_encoder(source, output, choices, int8=int8, overwrite=overwrite)
    if as_json:
        print_json(asdict(report))
        return
    parity = report.parity
    bound = "" if parity.limit is None else f" ({parity.limit:.0e} allowed)"
    console().print(
        "Wrote", bold(f"{output},"), f"{decimal(report.bytes)}: {report.precision}, vectors of {report.dimension}, "
        f"{report.pooling} pooling, {report.max_length} tokens at most"
    )
    console().print(
        f"Beside torch, {parity.texts} texts: max abs error {parity.max_abs_err:.1e}{bound}, "
        f"least cosine {parity.least_cosine:.6f}"
    )


@contextmanager
def usable_encoder(encoder: Path | None, store: Path, *, overwrite: bool) -> Iterator[Path | None]:
    """What `memory index` of this store can use: an exported encoder as it is, another one exported for the while."""
    from glimmer_export.exporter.encoders.source import is_encoder_source

    if encoder is None or not is_encoder_source(encoder):
        yield encoder
        return
    _require()
    from glimmer_export.exporter.encoders import exported_encoder

    with exported_encoder(encoder, store, overwrite=overwrite) as exported:
        yield exported


def _require() -> None:
    require("torch", "transformers", "onnx", "onnx_ir", "onnxscript", "onnxruntime")
