"""Commands on memory stores: the one that builds them, and the group."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glimmer_export.exporter.cli import memory_changes, memory_health
from glimmer_export.exporter.cli.choices import one_of
from glimmer_export.exporter.cli.encoders import usable_encoder
from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import (
    BackendName,
    BatchTokens,
    BundleArgument,
    ChunkWords,
    ComputePrecision,
    CorpusFormat,
    Json,
    Output,
    Overwrite,
    StoreArgument,
    Threads,
)
from glimmer_export.exporter.cli.output import bold, console, print_json, print_warnings
from glimmer_export.exporter.cli.ranges import MAX_COUNT, MAX_WORKERS
from glimmer_export.runtime.contract import CODECS, OptionError
from glimmer_export.runtime.contract.store_layout import INDEX_ENGINES

if TYPE_CHECKING:
    from glimmer_export.runtime.contract import CodecSnr

__all__ = ["app"]

RUNNERS = ("local", "ray")
ENGINES = ("auto", *INDEX_ENGINES)

app = typer.Typer(help="Pre-compute passages into a memory store; change, check and repair it.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Pre-compute passages into a memory store; change, check and repair it."""


@app.command()
def build(
    bundle: BundleArgument,
    output: Output,
    corpus: Annotated[
        list[Path],
        typer.Option(
            "--corpus", help="Passages, or documents: `id`, `title`, `text` each. Repeatable; or a folder of files."
        ),
    ],
    corpus_format: CorpusFormat = None,
    chunk_words: ChunkWords = None,
    codec: Annotated[
        str | None,
        typer.Option("--codec", help="What memory is kept in. Default: the one that the bundle decodes, or fp16."),
    ] = None,
    passages_per_shard: Annotated[int, typer.Option("--passages-per-shard", min=1, max=MAX_COUNT)] = 4096,
    batch_tokens: BatchTokens = 4096,
    threads: Threads = None,
    backend: BackendName = "onnxruntime-cpu",
    compute_precision: ComputePrecision = "fp32",
    index: Annotated[
        str, one_of("--index", ENGINES, "Full-text index. auto: tantivy above 100,000 passages.")
    ] = "auto",
    restart: Annotated[bool, typer.Option("--restart", help="Throw an unfinished build away and start again.")] = False,
    int8_memory: Annotated[
        bool, typer.Option("--int8-memory", help="Let an INT8 memory encoder write the store; a float one loses less.")
    ] = False,
    runner: Annotated[
        str, one_of("--runner", RUNNERS, "Encode in this process, or by workers on Ray.")
    ] = RUNNERS[0],
    ray_address: Annotated[
        str | None,
        typer.Option("--ray-address", metavar="HOST:PORT", help="A cluster, or auto. Default: a Ray for this build."),
    ] = None,
    ray_actors: Annotated[
        int | None,
        typer.Option(
            "--ray-actors", min=1, max=MAX_WORKERS, help="Workers of --threads CPUs each, or one; as many as fit."
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Encode every passage of a corpus; interrupted, the same command goes on where it stopped."""
    from rich.filesize import decimal

    from glimmer_export.exporter.memory import CorpusSource, build_store
    from glimmer_export.exporter.memory.runners import choose_runner

    source = CorpusSource.of(corpus, corpus_format, chunk_words)
    summary = build_store(
        bundle, source, output, codec=codec, overwrite=overwrite, restart=restart,
        int8_memory=int8_memory, batch_tokens=batch_tokens, passages_per_shard=passages_per_shard, threads=threads,
        progress=not as_json, index=index, backend=backend,
        compute_precision=compute_precision,
        runner=choose_runner(runner, ray_address=ray_address, ray_actors=ray_actors),
    )
    if as_json:
        print_json(asdict(summary))
        return
    done = "was already complete" if summary.already_complete else f"built in {summary.seconds:.1f} s"
    console().print(
        bold(output),
        f"{done}: {summary.passages:,} passages, {summary.tokens:,} tokens, "
        f"{summary.shards} shards, {decimal(summary.bytes)}"
    )
    if summary.resumed_shards:
        console().print(f"{summary.resumed_shards} shards were kept from an interrupted build")
    if summary.truncated:
        console().print(f"{summary.truncated:,} passages were longer than passage_length and were cut")
    _print_snr(summary.codec, summary.codec_snr)
    print_warnings(summary.warnings)


@app.command()
def convert(
    store: StoreArgument,
    output: Output,
    codec: Annotated[str, one_of("--codec", CODECS, "What memory is to be kept in.")],
    restart: Annotated[bool, typer.Option("--restart", help="Throw unfinished work away and start again.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Re-encode a store in another codec, without the bundle; interrupted, the same command goes on."""
    from rich.filesize import decimal

    from glimmer_export.exporter.memory import convert_store

    summary = convert_store(
        store, output, codec, overwrite=overwrite, restart=restart, progress=not as_json
    )
    if as_json:
        print_json(asdict(summary))
        return
    if summary.already_complete:
        console().print(f"{bold(output)} was already complete: {summary.passages:,} passages in {summary.codec}")
        return
    console().print(
        bold(output),
        f"converted in {summary.seconds:.1f} s: {summary.passages:,} passages, {summary.source_codec} "
        f"{decimal(summary.source_bytes)} -> {summary.codec} {decimal(summary.bytes)}"
    )
    if summary.source_codec != "fp16":
        console().print(f"the source was in {summary.source_codec}: what that lost is lost here too")
    _print_snr(codec, summary.codec_snr)
    print_warnings(summary.warnings)


@app.command("index")
def index_command(
    store: StoreArgument,
    embeddings: Annotated[
        Path | None, typer.Option("--embeddings", help="A .npy file of float32 or float16, a row a passage, in order.")
    ] = None,
    ids: Annotated[
        Path | None, typer.Option("--ids", help="The rows' passage ids in JSON, one a line, if the order is another.")
    ] = None,
    encoder: Annotated[
        Path | None,
        typer.Option(
            "--encoder",
            help="What `export-encoder` wrote, or an encoder's directory that it takes and exports first.",
        ),
    ] = None,
    engine: Annotated[
        str | None,
        one_of("--engine", ENGINES, "Full-text index by this engine from now on, as `memory build --index`. Default: "
               "the store's own."),
    ] = None,
    search: Annotated[
        str | None,
        one_of("--search", ("auto", "exact", "ivfpq"), "For a question look at each vector, or where codes lead. "
               "auto: ivfpq above 100,000. Alone, it changes the store's. Default: the store's own, else auto."),
    ] = None,
    batch_size: Annotated[
        int, typer.Option("--batch-size", min=1, max=MAX_COUNT, help="Passages of one run of the encoder.")
    ] = 32,
    threads: Threads = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make a store's full-text index anew, or give it vectors: `--retrieval dense` or `hybrid` finds by them."""
    if embeddings is None and encoder is None and ids is None and search is None:
        _renew_index(store, engine, as_json=as_json)
        return
    if engine is not None:
        raise OptionError(
            "--engine", expected="it alone, for the full-text index", found="options of vectors beside it",
            fix="run the command once for each",
        )
    require(*(["onnx", "onnxruntime"] if encoder is not None else []))
    from rich.filesize import decimal

    from glimmer_export.exporter.memory import index_store

    with usable_encoder(encoder, store, overwrite=overwrite) as usable:
        summary = index_store(
            store, embeddings=embeddings, ids=ids, encoder=usable, search=search, overwrite=overwrite,
            batch_size=batch_size, threads=threads, progress=not as_json,
        )
    if as_json:
        print_json(asdict(summary))
        return
    console().print(
        bold(store),
        f"generation {summary.generation}, indexed in {summary.seconds:.1f} s: {summary.vectors:,} vectors of "
        f"{summary.dimension}, {summary.added:,} of them new, {decimal(summary.bytes)}"
    )
    if summary.recall is not None:
        console().print(
            f"searched by codes, {summary.probes} of {summary.lists} lists for a question, which have "
            f"{summary.recall:.4f} of the best 20 of vectors of the store"
        )
    if not summary.encoder:
        console().print("Without an encoder, questions are searched by `MemoryStore.search_dense(embedding)` alone")


def _renew_index(store: Path, engine: str | None, *, as_json: bool) -> None:
    from glimmer_export.exporter.memory import renew_index

    summary = renew_index(store, engine=engine, progress=not as_json)
    if as_json:
        print_json(asdict(summary))
        return
    console().print(
        bold(store),
        f"generation {summary.generation} in {summary.seconds:.1f} s: {summary.passages:,} passages "
        f"indexed by {summary.engine}"
        + (f", and no more by {summary.engine_before}" if summary.engine != summary.engine_before else "")
    )


def _print_snr(codec: str | None, snr: CodecSnr | None) -> None:
    """What the codec keeps; nothing to say of a store without memory."""
    if snr is None:
        return
    if snr.outside_db is None:
        where = f"{snr.fitted_db:.1f} dB above its error, on the passages that it was fitted to: there are no others"
    elif snr.fitted_db is None:
        where = f"{snr.outside_db:.1f} dB above its error"
    else:
        where = f"{snr.outside_db:.1f} dB above its error, {snr.fitted_db:.1f} dB on the passages it was fitted to"
    console().print(f"{codec} keeps the memory {where}")


app.command()(memory_changes.append)
app.command()(memory_changes.delete)
app.command()(memory_changes.compact)
app.command()(memory_health.stats)
app.command()(memory_health.verify)
app.command()(memory_health.repair)
