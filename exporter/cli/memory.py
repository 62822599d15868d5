"""Commands on memory stores: the one that builds them, and the group."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from exporter.cli import memory_changes, memory_health
from exporter.cli.options import (
    BatchTokens,
    BundleArgument,
    Codec,
    CorpusFormat,
    Json,
    Output,
    Overwrite,
    StoreArgument,
    Threads,
)
from exporter.cli.output import bold, console, print_json

__all__ = ["app"]

app = typer.Typer(help="Pre-compute passages into a memory store; change, check and repair it.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Pre-compute passages into a memory store; change, check and repair it."""


@app.command()
def build(
    bundle: BundleArgument,
    output: Output,
    corpus: Annotated[Path, typer.Option("--corpus", help="Passages, or documents: `id`, `title`, `text` each.")],
    corpus_format: CorpusFormat = None,
    chunk_words: Annotated[
        int | None,
        typer.Option("--chunk-words", min=1, help="Cut each text into passages of N words, with ids such as `7#0`."),
    ] = None,
    codec: Annotated[
        Codec, typer.Option("--codec", help="What memory is kept in; the bundle's graphs must decode it.")
    ] = Codec.fp16,
    passages_per_shard: Annotated[int, typer.Option("--passages-per-shard", min=1)] = 4096,
    batch_tokens: BatchTokens = 4096,
    threads: Threads = None,
    restart: Annotated[bool, typer.Option("--restart", help="Throw an unfinished build away and start again.")] = False,
    int8_memory: Annotated[
        bool, typer.Option("--int8-memory", help="Let an INT8 memory encoder write the store; a float one loses less.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Encode every passage of a corpus; interrupted, the same command goes on where it stopped."""
    from rich.filesize import decimal

    from exporter.memory import CorpusSource, build_store

    source = CorpusSource(corpus, corpus_format and corpus_format.value, chunk_words)
    summary = build_store(
        bundle, source, output, codec=codec.value, overwrite=overwrite, restart=restart, int8_memory=int8_memory,
        batch_tokens=batch_tokens, passages_per_shard=passages_per_shard, threads=threads, progress=not as_json,
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


@app.command()
def convert(
    store: StoreArgument,
    output: Output,
    codec: Annotated[Codec, typer.Option("--codec", help="What memory is to be kept in.")],
    restart: Annotated[bool, typer.Option("--restart", help="Throw unfinished work away and start again.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Re-encode a store in another codec, without the bundle; interrupted, the same command goes on."""
    from rich.filesize import decimal

    from exporter.memory import convert_store

    summary = convert_store(
        store, output, codec.value, overwrite=overwrite, restart=restart, progress=not as_json
    )
    if as_json:
        print_json(asdict(summary))
        return
    console().print(
        f"{bold(output)} converted in {summary.seconds:.1f} s: {summary.passages:,} passages, {summary.source_codec} "
        f"{decimal(summary.source_bytes)} -> {summary.codec} {decimal(summary.bytes)}"
    )
    if summary.source_codec != "fp16":
        console().print(f"the source was in {summary.source_codec}: what that lost is lost here too")


app.command()(memory_changes.append)
app.command()(memory_changes.delete)
app.command()(memory_changes.compact)
app.command()(memory_health.verify)
app.command()(memory_health.repair)
