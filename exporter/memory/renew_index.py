"""The full-text index of a store made anew from its texts, its words folded as they are now."""

from __future__ import annotations

import dataclasses
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.exporter.files.whole_file import replace_file
from glimmer_export.exporter.memory.commit import changing
from glimmer_export.exporter.memory.texts import index_entry, read_live, write_segments
from glimmer_export.exporter.report.progress import progress_bar
from glimmer_export.runtime.contract import MANIFEST, STORE_SCHEMA_VERSION, StoreError, StoreManifest, record_to_json
from glimmer_export.runtime.contract.dense_layout import DENSE, read_dense_manifest

__all__ = ["RenewSummary", "renew_index"]


@dataclass(frozen=True)
class RenewSummary:
    """What was indexed: so many `passages` by `engine`, as `generation` of the store."""

    generation: int
    engine: str
    passages: int
    seconds: float


def renew_index(store: str | Path, *, progress: bool = False) -> RenewSummary:
    """Make a store's full-text index anew, in its engine; passages, memory and vectors stay.

    A store that an earlier version built is searched as it was until then.

    Raises StoreError (no store, a damaged one), OutputError (another process changes it, a full disk),
    MissingExtraError without the engine's package: the store is then as it was.
    """
    started = time.monotonic()
    with changing(Path(store)) as change:
        before = change.manifest
        for segment in before.segments:
            change.check(segment.texts)
        with progress_bar("Indexing texts", before.num_passages, shown=progress) as advance:
            passages = read_live(change.store, before.segments, change.tombstones)
            segments = write_segments(
                change.staged, change.generation, passages, before.num_numbers, before.index.engine, advance=advance
            )
        manifest = dataclasses.replace(
            before, schema_version=STORE_SCHEMA_VERSION, generation=change.generation, segments=segments,
            index=index_entry(before.index.engine),
        )
        change.publish(manifest)
        _keep_vectors(change.store, before, manifest)
    return RenewSummary(manifest.generation, manifest.index.engine, before.num_passages, time.monotonic() - started)


def _keep_vectors(store: Path, before: StoreManifest, manifest: StoreManifest) -> None:
    """Vectors of the generation before are those of the same passages."""
    with suppress(StoreError):  # there are none, or of an earlier generation
        dense = dataclasses.replace(
            read_dense_manifest(store, before), generation=manifest.generation, texts_sha256=manifest.texts_sha256
        )
        replace_file(store / DENSE / MANIFEST, record_to_json(dense).encode())
