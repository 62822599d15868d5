"""Commands that look at a memory store, and mend damage in it: stats, verify, repair."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from glimmer_export.exporter.cli.options import BatchTokens, CorpusFormat, Json, StoreArgument, Threads
from glimmer_export.exporter.cli.output import bold, console, print_json, print_warnings
from glimmer_export.exporter.report.visible import visible
from glimmer_export.runtime.contract import OptionError

__all__ = ["repair", "stats", "verify"]


def stats(store: StoreArgument, as_json: Json = False) -> None:
    """Say what a store consists of, and what it keeps for readers of earlier generations."""
    from rich.filesize import decimal

    from glimmer_export.exporter.memory import store_stats

    found = store_stats(store)
    if as_json:
        print_json(asdict(found))
        return
    out = console()
    out.print(
        bold(store), f"generation {found.generation}: {found.passages:,} passages of {found.tokens:,} tokens, "
        f"{found.deleted:,} deleted"
    )
    out.print(
        f"{found.shards:,} shards, {decimal(found.shard_bytes)}, in {found.codec or 'no codec'}; texts, "
        f"{decimal(found.texts_bytes)}, in files: {found.texts_files}; {found.engine}"
        + (f", {decimal(found.index_bytes)}, in segments: {found.segments}" if found.segments else "")
    )
    if found.vectors is not None:
        out.print(
            f"vectors of {found.vectors:,} passages in {found.vector_segments} segments, with their encoder "
            f"{decimal(found.vectors_bytes)}" + (f"; {found.without_vector:,} passages have none, `memory index` makes "
            "them" if found.without_vector else "")
        )
    left = found.deleted - found.empty_rows
    if left or found.texts_left:
        out.print(
            f"for `memory compact` to remove: memory of {left:,} deleted passages, texts of {found.texts_left:,}"
        )
    if found.older:
        out.print(
            f"{len(found.older)} older generations, of which {len(found.open)} are open, keep "
            f"{decimal(found.older_bytes)}"
        )
    print_warnings(found.warnings)


def verify(store: StoreArgument, as_json: Json = False) -> None:
    """Check every file of a store against its digest; exits with 1 if one is damaged, and says how to rebuild it."""
    from rich.filesize import decimal

    from glimmer_export.exporter.memory import verify_store

    report = verify_store(store, progress=not as_json)
    if as_json:
        print_json(asdict(report))
        raise typer.Exit(1 if report.damaged else 0)
    out = console()
    for damage in report.damaged:
        text = f"{damage.path}: expected {damage.expected}, found {damage.found}; {damage.fix}"
        out.print(visible(text), soft_wrap=True)
    if report.older:
        out.print(f"older generations, for `memory compact` to remove: {', '.join(map(str, report.older))}")
    if report.unnamed:
        out.print(f"files of no generation: {visible(', '.join(report.unnamed))}", soft_wrap=True)
    state = f"{len(report.damaged)} damaged" if report.damaged else "whole"
    generation = "no readable manifest" if report.generation is None else f"generation {report.generation}"
    out.print(bold(store), f"{generation}: {report.files} files, {decimal(report.bytes)}, {state}")
    raise typer.Exit(1 if report.damaged else 0)


def repair(
    store: StoreArgument,
    bundle: Annotated[
        Path | None, typer.Option("--bundle", help="The bundle that built the store, to encode shards again.")
    ] = None,
    corpus: Annotated[
        list[Path] | None,
        typer.Option("--corpus", help="The corpus that the store was built from, to write texts again; as then."),
    ] = None,
    corpus_format: CorpusFormat = None,
    rollback: Annotated[
        bool,
        typer.Option("--rollback", help="Go back to the newest generation that is whole; what came after is lost."),
    ] = False,
    batch_tokens: BatchTokens = 4096,
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Make the damaged files of a store again, and only those."""
    if rollback:
        if bundle or corpus:
            raise OptionError(
                "--rollback", expected="neither --bundle nor --corpus", found="one", fix="repair, or roll back"
            )
        _roll_back(store, as_json=as_json)
        return
    from glimmer_export.exporter.memory import repair_store

    summary = repair_store(
        store, bundle_directory=bundle, corpus_path=corpus or None, corpus_format=corpus_format,
        batch_tokens=batch_tokens, threads=threads, progress=not as_json,
    )
    if as_json:
        print_json(asdict(summary))
        return
    for path in summary.restored:
        console().print(f"{visible(path)}: restored, with the bytes that it had")
    for path in summary.renewed:
        console().print(f"{visible(path)}: made again with other bytes, for generation {summary.generation}")
    if not summary.restored and not summary.renewed:
        console().print(bold(f"{store}:"), "nothing is damaged")


def _roll_back(store: Path, *, as_json: bool) -> None:
    from glimmer_export.exporter.memory import roll_back

    summary = roll_back(store)
    if as_json:
        print_json(asdict(summary))
        return
    before = "" if summary.damaged_passages is None else f", where there were {summary.damaged_passages:,}"
    console().print(
        bold(store),
        f"is again what it was in generation {summary.back_to}, as generation {summary.generation}: "
        f"{summary.passages:,} passages{before}. Every change after generation {summary.back_to} is lost; "
        "`memory compact` removes the damaged files."
    )
