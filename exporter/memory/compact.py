"""A store rid of what was deleted: full shards, passages numbered anew, texts as if just built, old files removed.

Rows are copied into the new shards whatever tensors the codec has, a few passages at a time.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.memory.commit import Change, changing
from glimmer_export.exporter.memory.generations import next_shard_index, remove_older
from glimmer_export.exporter.memory.shards import ShardFile
from glimmer_export.exporter.memory.texts import read_texts, write_texts
from glimmer_export.exporter.report.progress import progress_bar
from glimmer_export.runtime.array_files import SafetensorsFile
from glimmer_export.runtime.contract import ShardEntry, StoreError, StoreManifest, shard_name
from glimmer_export.runtime.contract.shard_layout import shard_tensors
from glimmer_export.runtime.contract.store_layout import texts_name
from glimmer_export.runtime.generation import read_tombstones

__all__ = ["CompactSummary", "Run", "compact_store", "copy_rows", "live_runs", "token_counts"]

PASSAGES_AT_ONCE = 64
OFFSETS = "offsets"


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
    """Drop deleted passages from a store, fill its shards, and remove the generations that nobody has open.

    Shards before the first that has a tombstone, or room, stay as they are; the rest is copied, a few passages at a
    time, and needs as much room again until the generation before is gone. Where there is nothing to pack, no
    generation is made.

    Raises StoreError (no store, a damaged one), OutputError (another process changes it, a full disk): the store is
    then as it was.
    """
    started = time.monotonic()
    with changing(Path(store)) as change:
        manifest, copied, written = change.manifest, 0, 0
        tombstones = read_tombstones(change.store, manifest)
        first = _first_to_pack(manifest, tombstones)
        if first is not None:
            manifest, copied = _pack(change, tombstones, first, progress=progress)
            written = len(manifest.shards) - first
        removed, still_open, freed = remove_older(change.store, manifest)
    return CompactSummary(
        generation=manifest.generation, passages=manifest.num_passages, copied=copied, shards=written,
        removed=tuple(removed), open=tuple(still_open), freed_bytes=change.swept_bytes + freed,
        seconds=time.monotonic() - started,
    )


def _first_to_pack(manifest: StoreManifest, tombstones: NDArray[np.int64]) -> int | None:
    """Index of the first shard that has a tombstone, or room while another follows; None where all are packed."""
    counts = [shard.num_passages for shard in manifest.shards]
    ends = list(accumulate(counts))
    for index, (count, end) in enumerate(zip(counts, ends, strict=True)):
        if len(tombstones) and tombstones[0] < end:
            return index
        if count != manifest.passages_per_shard and index < len(counts) - 1:
            return index
    return None


def _pack(
    change: Change, tombstones: NDArray[np.int64], first: int, *, progress: bool
) -> tuple[StoreManifest, int]:
    before = change.manifest
    kept, packed = before.shards[:first], before.shards[first:]
    change.check(before.texts, before.tombstones, *(shard.file for shard in packed))
    runs = list(_live_runs(change.store, before, tombstones, first))
    copied = sum(run.num_passages for run in runs)
    with progress_bar("Copying memory", copied, shown=progress) as advance:
        shards = (*kept, *_write_shards(change, runs, advance))
    texts = texts_name(change.generation)
    with progress_bar("Indexing texts", before.num_passages, shown=progress) as advance:
        passages = (passage for _, passage in read_texts(change.store / before.texts.path))
        write_texts(change.staged / texts, passages, advance=advance, folding=change.folding())
    index = change.index(texts, advance=lambda _: None)
    full = sum(int((token_counts(run) == before.passage_length).sum()) for run in [
        *(Run(change.store / shard.file.path, 0, shard.num_passages) for shard in kept), *runs,
    ])
    manifest = dataclasses.replace(
        before,
        generation=change.generation,
        num_tokens=sum(shard.num_tokens for shard in shards),
        num_truncated=min(before.num_truncated, full),
        shards=shards,
        num_tombstones=0,
        tombstones=None,
        texts=change.entry(texts),
        index=index,
    )
    change.publish(manifest)
    return manifest, copied


def _live_runs(store: Path, manifest: StoreManifest, tombstones: NDArray[np.int64], first: int) -> Iterator[Run]:
    """The passages from shard `first` on that are there, in the order of their numbers."""
    start = sum(shard.num_passages for shard in manifest.shards[:first])
    for shard in manifest.shards[first:]:
        end = start + shard.num_passages
        dead = tombstones[slice(*tombstones.searchsorted([start, end]))] - start
        yield from live_runs(store / shard.file.path, shard.num_passages, dead)
        start = end


def _write_shards(change: Change, runs: list[Run], advance: Callable[[int], None]) -> Iterator[ShardEntry]:
    manifest = change.manifest
    (change.staged / shard_name(0)).parent.mkdir()
    for index, part in enumerate(_parts(runs, manifest.passages_per_shard), next_shard_index(change.store)):
        name = shard_name(index)
        counts = copy_rows(change.staged / name, part, d_model=manifest.d_model, codec=manifest.codec, advance=advance)
        yield ShardEntry(change.entry(name), *counts)


def _parts(runs: list[Run], size: int) -> Iterator[list[Run]]:
    """The runs cut into parts of `size` passages each, but for the last."""
    part: list[Run] = []
    room = size
    for run in runs:
        start = run.start
        while start < run.stop:
            stop = min(run.stop, start + room)
            part.append(Run(run.path, start, stop))
            room -= stop - start
            start = stop
            if room == 0:
                yield part
                part, room = [], size
    if part:
        yield part


@dataclass(frozen=True)
class Run:
    """Passages `start` to `stop` of the shard `path`, by their rows there."""

    path: Path
    start: int
    stop: int

    @property
    def num_passages(self) -> int:
        """How many passages the run has."""
        return self.stop - self.start


def live_runs(path: Path, num_passages: int, dead: NDArray[np.int64]) -> Iterator[Run]:
    """The runs of a shard between its `dead` rows (n,), which rise."""
    start = 0
    for row in [*dead.tolist(), num_passages]:
        if row > start:
            yield Run(path, start, row)
        start = row + 1


def token_counts(run: Run) -> NDArray[np.int64]:
    """How many tokens each passage of a run has, (passages,) int64."""
    return np.diff(_bounds(run))


def copy_rows(
    path: Path, runs: Sequence[Run], *, d_model: int, codec: str | None, advance: Callable[[int], None]
) -> tuple[int, int]:
    """Write the shard `path` from runs of others, which have the same tensors; returns its passages and tokens.

    `advance` is told how many passages come to be copied.
    """
    bounds = [_bounds(run) for run in runs]
    lengths = np.concatenate([np.diff(offsets) for offsets in bounds])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tensors = shard_tensors(len(lengths), int(offsets[-1]), d_model, codec)
    kinds, row = _kinds(d_model, codec), 0
    with ShardFile(path, tensors) as shard:
        shard.write(OFFSETS, 0, offsets)
        for run, source in zip(runs, bounds, strict=True):
            _copy_run(shard, run, source, kinds, row=row, token=int(offsets[row]), advance=advance)
            row += run.num_passages
    return len(lengths), int(offsets[-1])


def _copy_run(
    shard: ShardFile, run: Run, source: NDArray[np.int64], kinds: dict[str, bool], *,
    row: int, token: int, advance: Callable[[int], None],
) -> None:
    """Copy a run, whose tokens lie at `source` (passages + 1,), to `row` and `token` of the new shard."""
    opened = _opened(run)
    for first in range(0, run.num_passages, PASSAGES_AT_ONCE):
        last = min(first + PASSAGES_AT_ONCE, run.num_passages)
        for name, per_token in kinds.items():
            if per_token:
                values = opened.rows(name, int(source[first]), int(source[last]))
                shard.write(name, token + int(source[first] - source[0]), values)
            else:
                shard.write(name, row + first, opened.rows(name, run.start + first, run.start + last))
        advance(last - first)


def _bounds(run: Run) -> NDArray[np.int64]:
    """Where the tokens of a run's passages lie in its shard, (passages + 1,) int64."""
    found: NDArray[np.int64] = _opened(run).rows(OFFSETS, run.start, run.stop + 1)
    return found


def _opened(run: Run) -> SafetensorsFile:
    def refused(reason: str) -> StoreError:
        return StoreError(
            f"shard {run.path}", expected="a whole safetensors file", found=reason,
            fix="see `glimmer-export memory verify`",
        )

    return SafetensorsFile(run.path, refused)


def _kinds(d_model: int, codec: str | None) -> dict[str, bool]:
    """The tensors beside the offsets, and whether each has an entry a token; else it has one a passage."""
    passages, tokens = 1, 3  # told apart by their number, from the offsets too
    tensors = shard_tensors(passages, tokens, d_model, codec)
    return {tensor.name: tensor.shape[0] == tokens for tensor in tensors if tensor.name != OFFSETS}
