"""The command that writes a model repository for the Triton Inference Server."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from glimmer_export.exporter.cli.options import (
    Backend,
    BundleArgument,
    DraftTokens,
    Json,
    Overwrite,
    RecordedPrecision,
    RequireParity,
    Retrieval,
    Threads,
    Verify,
)
from glimmer_export.exporter.cli.output import bold, console, print_json
from glimmer_export.exporter.cli.ranges import MAX_COUNT

__all__ = ["triton"]


def triton(
    bundle: BundleArgument,
    store: Annotated[Path, typer.Option("--store", help="Directory written by `glimmer-export memory build`.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model repository to write.")],
    name: Annotated[str, typer.Option("--name", help="The model's name in Triton's URLs.")] = "glimmer",
    link: Annotated[
        bool,
        typer.Option("--link", help="Name the paths of bundle and store instead of copying both into the repository."),
    ] = False,
    max_batch_size: Annotated[
        int, typer.Option("--max-batch-size", min=1, max=MAX_COUNT, help="Questions that Triton hands over at once.")
    ] = 8,
    retrieval: Retrieval = "bm25",
    backend: Backend = "auto",
    compute_precision: RecordedPrecision = "auto",
    draft_tokens: DraftTokens = None,
    require_parity: RequireParity = None,
    threads: Threads = None,
    verify: Verify = True,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a model repository for Triton, whose Python backend then answers with this bundle from this store."""
    from rich.filesize import decimal

    from glimmer_export.exporter.triton import TritonOptions, write_repository

    options = TritonOptions(
        name=name, max_batch_size=max_batch_size, backend=backend, retrieval=retrieval,
        require_parity=require_parity or "no", threads=threads, verify=verify,
        compute_precision=compute_precision, draft_tokens=draft_tokens,
    )
    written = write_repository(bundle, store, output, options, link=link, overwrite=overwrite)
    if as_json:
        print_json({key: str(value) if isinstance(value, Path) else value for key, value in asdict(written).items()})
        return
    console().print(bold(output), f"has the model {name}, {decimal(written.bytes)}", soft_wrap=True)
    if link:
        console().print("it reads", bold(written.bundle), "and", bold(written.store), soft_wrap=True)
