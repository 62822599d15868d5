"""Commands on memory stores."""

from __future__ import annotations

from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from exporter.cli.extras import require
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


@app.command("index")
def index_command(
    store: Annotated[Path, typer.Argument(metavar="STORE", help="Directory written by `glimmer-export memory build`.")],
    embeddings: Annotated[
        Path | None, typer.Option("--embeddings", help="A .npy file of float32 or float16, a row a passage, in order.")
    ] = None,
    ids: Annotated[
        Path | None, typer.Option("--ids", help="The rows' passage ids in JSON, one a line, if the order is another.")
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option("--encoder", help="A sentence encoder: model.onnx, tokenizer.json, and encoder.json with pooling "
                     "(mean, cls, graph), normalise, query_prefix, passage_prefix, max_length."),
    ] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Passages of one run of the encoder.")] = 32,
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Give a store vectors of its passages, to find them by: `--retrieval dense` or `hybrid`."""
    require(*(["onnx", "onnxruntime"] if encoder is not None else []))
    from rich.filesize import decimal

    from exporter.memory import index_store

    summary = index_store(
        store, embeddings=embeddings, ids=ids, encoder=encoder, overwrite=overwrite, batch_size=batch_size,
        threads=threads, progress=not as_json,
    )
    if as_json:
        print_json(asdict(summary))
        return
    console().print(
        f"{bold(store)} indexed in {summary.seconds:.1f} s: {summary.vectors:,} vectors of {summary.dimension}, "
        f"{decimal(summary.bytes)}"
    )
    if not summary.encoder:
        console().print("Without an encoder, questions are searched by `MemoryStore.search_dense(embedding)` alone")
