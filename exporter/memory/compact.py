"""A store rid of what was deleted: the shards and segments that lost passages written anew, old files removed.

Passages keep their numbers, and what lost none its bytes.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glimmer_export.exporter.memory.commit import Change, changing
from glimmer_export.exporter.memory.generations import free_older, sweep
from glimmer_export.exporter.memory.merge_policy import small_runs
from glimmer_export.exporter.memory.merge_shards import ShardSource, write_merged
from glimmer_export.exporter.memory.segments import packed_index, packed_texts
from glimmer_export.exporter.memory.vector_segments import packed_vectors
from glimmer_export.exporter.report.progress import progress_bar
from glimmer_export.runtime.contract import STORE_SCHEMA_VERSION, ShardEntry, ShardListEntry, StoreManifest
from glimmer_export.runtime.contract.store_layout import changed_shard_name
from glimmer_export.runtime.contract.store_manifest import read_shard_list
from glimmer_export.runtime.contract.store_mending import saying_what_mends

__all__ = ["CompactSummary", "compact_store"]


@dataclass(frozen=True)
class CompactSummary:
    """What a compaction did. `copied` passages went into `shards` new shards, both 0 where there was nothing to pack.

    Generations in `removed` are gone; those in `open` are held by who has the store open, and stay until the next time.
    `freed_bytes` are those of removed files.
    """

    generation: int
    passages: int
    copied: int
    shards: int
    removed: tuple[int, ...]
    open: tuple[int, ...]
    freed_bytes: int
    seconds: float


def compact_store(store: str | Path, *, progress: bool = False) -> CompactSummary:
    """Drop deleted passages from a store, merge its small shards, and remove the generations that nobody has open.

    Only shards that lost passages since they were written, and small neighbours, are written anew, and so are segments
    of texts. Passages keep their numbers. Where there is nothing to pack, no generation is made.

    Raises StoreError (no store, a damaged one), OutputError (another process changes it, a full disk): the store is
    then as it was.
    """
    started = time.monotonic()
    with changing(Path(store)) as change:
        packing = _Packing(change)
        with progress_bar("Copying memory", packing.num_passages, shown=progress) as advance:
            manifest = packing.manifest(advance)
        with progress_bar("Indexing texts", change.manifest.num_passages, shown=progress) as advance:
            texts = packed_texts(change)
            segments = packed_index(change, texts, advance=advance)
            manifest = dataclasses.replace(manifest, texts=texts, segments=segments)
        manifest = dataclasses.replace(manifest, vectors=packed_vectors(change))
        if manifest != change.manifest:
            manifest = dataclasses.replace(
                manifest, schema_version=STORE_SCHEMA_VERSION, generation=change.generation,
                num_truncated=min(manifest.num_truncated, manifest.num_passages),
            )
            removed, still_open, freed = change.publish(manifest, dropped=packing.dropped, kept=0)
        else:
            removed, still_open, freed = free_older(change.store, manifest.generation, kept=0)
        freed += sweep(change.store, manifest)
    return CompactSummary(
        generation=manifest.generation, passages=manifest.num_passages, copied=packing.copied,
        shards=packing.num_written, removed=tuple(removed), open=tuple(still_open),
        freed_bytes=change.swept_bytes + freed, seconds=time.monotonic() - started,
    )


class _Packing:
    """The shards of a store that are to be written anew, list by list; `copied` passages were, `dropped` go."""

    def __init__(self, change: Change) -> None:
        self._change = change
        before = change.manifest
        self._parts: list[tuple[ShardListEntry | None, tuple[ShardEntry, ...], list[range]]] = []
        for part in before.shard_lists:
            shards = read_shard_list(change.store, before, part)
            self._parts.append((part, shards, self._runs(shards)))
        self._parts.append((None, before.shards, self._runs(before.shards)))
        self.copied = self.num_written = 0
        self.dropped: list[str] = []

    @property
    def num_passages(self) -> int:
        """How many passages are to be copied."""
        return sum(
            shards[place].num_passages - self._num_dead(shards[place])
            for _, shards, runs in self._parts for run in runs for place in run
        )

    def manifest(self, advance: Callable[[int], None]) -> StoreManifest:
        """The store's manifest with what was written, which is staged; `advance` is told how many were copied."""
        lists: list[ShardListEntry] = []
        own: tuple[ShardEntry, ...] = ()
        for part, shards, runs in self._parts:
            packed = tuple(self._packed(shards, runs, advance))
            if part is None:
                own = packed
            elif runs:
                lists += self._change.stage_lists(packed)
            else:
                lists.append(part)
        shard_lists, shards = self._change.listed(lists, own) if self.num_written else (tuple(lists), own)
        return dataclasses.replace(self._change.manifest, shard_lists=shard_lists, shards=shards)

    def _runs(self, shards: Sequence[ShardEntry]) -> list[range]:
        """Runs of shards that are each to be one: small neighbours, and whatever has lost passages, on its own."""
        runs = small_runs([shard.num_passages for shard in shards], self._change.manifest.passages_per_shard)
        covered = {place for run in runs for place in run}
        lost = [place for place, shard in enumerate(shards) if self._num_dead(shard) > shard.num_empty]
        runs += [range(place, place + 1) for place in lost if place not in covered]
        return sorted(runs, key=lambda run: run.start)

    def _num_dead(self, shard: ShardEntry) -> int:
        return int(np.diff(self._change.tombstones.searchsorted([shard.first, shard.end]))[0])

    def _packed(
        self, shards: Sequence[ShardEntry], runs: Sequence[range], advance: Callable[[int], None]
    ) -> Iterator[ShardEntry]:
        place = 0
        for run in runs:
            yield from shards[place : run.start]
            yield self._written(shards[run.start : run.stop], advance)
            place = run.stop
        yield from shards[place:]

    def _written(self, shards: Sequence[ShardEntry], advance: Callable[[int], None]) -> ShardEntry:
        change, manifest = self._change, self._change.manifest
        name = changed_shard_name(change.generation, self.num_written)
        (change.staged / name).parent.mkdir(exist_ok=True)
        sources = [
            ShardSource.of(change.store / shard.file.path, shard, change.tombstones) for shard in shards
        ]
        with saying_what_mends(change.store, manifest, shards[0].file.path):
            written = write_merged(
                change.staged / name, name, sources, d_model=manifest.d_model, codec=manifest.codec, advance=advance
            )
        self.dropped += [shard.file.path for shard in shards]
        self.num_written += 1
        self.copied += written.num_passages - written.num_empty
        return written
