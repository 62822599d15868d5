"""Commands on memory stores."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from exporter.cli.options import BundleArgument, Json, Output, Overwrite, Threads
from exporter.cli.output import bold, console, print_json

__all__ = ["app"]

class IndexChoice(str, Enum):
    """What searches a store's texts."""

    auto = "auto"
    fts5 = "fts5"
    tantivy = "tantivy"


app = typer.Typer(help="Pre-compute passages into a memory store.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Pre-compute passages into a memory store."""


@app.command()
def build(
    bundle: BundleArgument,
    output: Output,
    corpus: Annotated[Path, typer.Option("--corpus", help="JSONL with `id`, `title` and `text` a line.")],
    passages_per_shard: Annotated[int, typer.Option("--passages-per-shard", min=1)] = 4096,
    batch_tokens: Annotated[int, typer.Option("--batch-tokens", min=1, help="Padded tokens of one graph run.")] = 4096,
    threads: Threads = None,
    index: Annotated[
        IndexChoice, typer.Option("--index", help="Full-text index. auto: tantivy above 100,000 passages.")
    ] = IndexChoice.auto,
    restart: Annotated[bool, typer.Option("--restart", help="Throw an unfinished build away and start again.")] = False,
    int8_memory: Annotated[
        bool, typer.Option("--int8-memory", help="Let an INT8 memory encoder write the store; a float one loses less.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Encode every passage of a corpus; interrupted, the same command goes on where it stopped."""
    from rich.filesize import decimal

    from exporter.memory import build_store

    summary = build_store(
        bundle, corpus, output, overwrite=overwrite, restart=restart, int8_memory=int8_memory,
        batch_tokens=batch_tokens, passages_per_shard=passages_per_shard, threads=threads, index=index.value,
        progress=not as_json,
    )
    if as_json:
        print_json(asdict(summary))
        return
    done = "was already complete" if summary.already_complete else f"built in {summary.seconds:.1f} s"
    console().print(
        f"{bold(output)} {done}: {summary.passages:,} passages, {summary.tokens:,} tokens, "
        f"{summary.shards} shards, {decimal(summary.bytes)}"
    )
    if summary.resumed_shards:
        console().print(f"{summary.resumed_shards} shards were kept from an interrupted build")
    if summary.truncated:
        console().print(f"{summary.truncated:,} passages were longer than passage_length and were cut")
