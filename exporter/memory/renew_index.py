"""The full-text index of a store made anew from its texts, its words folded as they are now, by either engine."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.exporter.memory.commit import changing
from glimmer_export.exporter.memory.full_text import (
    TANTIVY,
    choose_engine,
    index_entry,
    write_segments,
    write_texts_and_index,
)
from glimmer_export.exporter.memory.texts import read_live
from glimmer_export.exporter.report.progress import progress_bar
from glimmer_export.runtime.contract import (
    STORE_SCHEMA_VERSION,
    read_store_manifest,
)

__all__ = ["RenewSummary", "renew_index"]


@dataclass(frozen=True)
class RenewSummary:
    """What was indexed: so many `passages` by `engine`, in place of `engine_before`, as `generation` of the store."""

    generation: int
    engine: str
    engine_before: str
    passages: int
    seconds: float


def renew_index(store: str | Path, *, engine: str | None = None, progress: bool = False) -> RenewSummary:
    """Make a store's full-text index anew; passages and their numbers, memory and vectors stay.

    By `engine`: `fts5`, `tantivy`, `auto` for the one that a build of so many passages has, None for the store's own. A
    store that an earlier version built is searched as it was until then.

    Raises StoreError (no store, a damaged one), OutputError (another process changes it, a full disk), OptionError for
    another engine, MissingExtraError without the engine's package: the store is then as it was.
    """
    started, store = time.monotonic(), Path(store)
    if engine is not None:
        engine = choose_engine(engine, read_store_manifest(store).num_passages)
    with changing(store, engine=engine) as change:
        before = change.manifest
        change.check_texts(before.texts)
        index = index_entry(engine or before.index.engine)
        passages = read_live(change.place, before.texts, change.tombstones)
        with progress_bar("Indexing texts", before.num_passages, shown=progress) as advance:
            if index.engine == before.index.engine == TANTIVY:
                texts = before.texts
                segments = write_segments(
                    change.staged, change.generation, passages, before.num_numbers, advance=advance
                )
            else:
                texts, segments = write_texts_and_index(
                    change.staged, change.generation, passages, before.num_numbers, index.engine, advance=advance
                )
        manifest = dataclasses.replace(
            before, schema_version=STORE_SCHEMA_VERSION, generation=change.generation, texts=texts, segments=segments,
            index=index,
        )
        change.publish(manifest)
    return RenewSummary(
        manifest.generation, index.engine, before.index.engine, before.num_passages, time.monotonic() - started
    )
