"""Commands that change a memory store: append, delete, compact."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from glimmer_export.exporter.cli.options import BatchTokens, BundleOption, CorpusFormat, Json, StoreArgument, Threads
from glimmer_export.exporter.cli.output import bold, console, print_json, print_warnings
from glimmer_export.runtime.contract import CodecSnr, OptionError

__all__ = ["append", "compact", "delete"]


def append(
    store: StoreArgument,
    bundle: BundleOption,
    corpus: Annotated[
        list[Path],
        typer.Option("--corpus", help="More of what the store was built from. Repeatable; or a folder of files."),
    ],
    corpus_format: CorpusFormat = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Passages whose ids are there take the old ones' places.")
    ] = False,
    batch_tokens: BatchTokens = 4096,
    threads: Threads = None,
    restart: Annotated[bool, typer.Option("--restart", help="Throw unfinished work away and start again.")] = False,
    as_json: Json = False,
) -> None:
    """Add passages to a store, or replace some; interrupted, the same command goes on where it stopped."""
    from glimmer_export.exporter.memory import append_passages

    summary = append_passages(
        store, bundle, corpus, corpus_format=corpus_format, replace=replace, restart=restart,
        batch_tokens=batch_tokens, threads=threads, progress=not as_json,
    )
    if as_json:
        print_json(asdict(summary))
        return
    if summary.already_complete:
        console().print(bold(store), f"had these passages already: generation {summary.generation}")
        return
    console().print(
        bold(store),
        f"generation {summary.generation} in {summary.seconds:.1f} s: {summary.appended:,} passages "
        f"appended, {summary.replaced:,} replaced, {summary.passages:,} in all"
    )
    if summary.resumed_shards:
        console().print(f"{summary.resumed_shards} shards were kept from an interrupted run")
    if summary.truncated:
        console().print(f"{summary.truncated:,} passages were longer than passage_length and were cut")
    if summary.snr_db is not None:
        console().print(
            f"the codec keeps the appended passages {summary.snr_db:.1f} dB above its error, {_own(summary.store_snr)}"
        )
    print_warnings(summary.warnings)


def delete(
    store: StoreArgument,
    ids: Annotated[
        Path | None, typer.Option("--ids", help="File of one id a line in JSON, or of objects with an `id`.")
    ] = None,
    single: Annotated[
        list[str] | None,
        typer.Option("--id", help="An id; repeatable. 7 is a number, '\"7\"' a string, as all that is not JSON."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Delete passages from a store, or whole documents if it has them cut; `memory compact` removes their bytes."""
    from glimmer_export.exporter.memory import delete_passages, id_from_text, read_ids

    wanted = [*(read_ids(ids) if ids else []), *(id_from_text(text) for text in single or [])]
    if not wanted:
        raise OptionError("--ids or --id", expected="ids to delete", found="none", fix="name at least one")
    summary = delete_passages(store, wanted, inputs=[ids], progress=not as_json)
    if as_json:
        print_json(asdict(summary))
    elif summary.already_complete:
        console().print(bold(store), f"was rid of these passages already: generation {summary.generation}")
    else:
        console().print(
            bold(store),
            f"generation {summary.generation} in {summary.seconds:.1f} s: {summary.deleted:,} passages "
            f"deleted, {summary.passages:,} left"
        )


def compact(store: StoreArgument, as_json: Json = False) -> None:
    """Drop deleted passages, fill short shards, and remove the generations that nobody has open."""
    from rich.filesize import decimal

    from glimmer_export.exporter.memory import compact_store

    summary = compact_store(store, progress=not as_json)
    if as_json:
        print_json(asdict(summary))
        return
    packed = f"{summary.copied:,} passages copied into {summary.shards} shards" if summary.copied else "nothing to pack"
    console().print(
        bold(store),
        f"generation {summary.generation} in {summary.seconds:.1f} s: {packed}, "
        f"{decimal(summary.freed_bytes)} freed"
    )
    if summary.removed:
        console().print(f"removed: {_generations(summary.removed)}")
    if summary.open:
        console().print(f"still open, and kept: {_generations(summary.open)}; run this again once they are closed")


def _own(snr: CodecSnr | None) -> str:
    own_db = None if snr is None else snr.usual_db
    return "the store's own were not measured" if own_db is None else f"the store's own {own_db:.1f} dB"


def _generations(numbers: tuple[int, ...]) -> str:
    return ("generation " if len(numbers) == 1 else "generations ") + ", ".join(map(str, numbers))
