"""Neighbouring shards written as one, with the numbers that they had; the rows of deleted passages lose their tokens.

Rows are copied as they are, whatever tensors the codec has, once each was found to be what was written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.memory.shards import ShardFile
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.bundle import verify_file
from glimmer_export.runtime.contract import FileEntry, ShardEntry, StoreError
from glimmer_export.runtime.contract.shard_layout import CHECKSUMS, entry_tensors, passage_checksum, shard_tensors
from glimmer_export.runtime.shards import Shard, open_shard

__all__ = ["ShardSource", "live_runs", "write_merged"]

OFFSETS, INPUT_IDS = "offsets", "input_ids"
PASSAGES_AT_ONCE = 64


@dataclass(frozen=True)
class ShardSource:
    """A shard as it lies at `path`; the rows `dead` (n,), rising, are of passages that are deleted by now."""

    path: Path
    entry: ShardEntry
    dead: NDArray[np.int64]

    @classmethod
    def of(cls, path: Path, entry: ShardEntry, deleted: NDArray[np.int64]) -> ShardSource:
        """A shard, by the numbers (n,), rising, of all passages of its store that are deleted."""
        here = deleted[slice(*deleted.searchsorted([entry.first, entry.end]))]
        return cls(path, entry, here - entry.first)

    def open(self, d_model: int, codec: str | None) -> Shard:
        """Map it; raises StoreError if it is damaged, without checksums by its digest."""
        if not self.entry.checksums:
            file = FileEntry(self.path.name, self.entry.file.bytes, self.entry.file.sha256)
            verify_file(self.path.parent, file, error=StoreError, subject=f"shard {self.path}", fix="")
        return open_shard(self.path, entry_tensors(self.entry, d_model, codec), num_empty=self.entry.num_empty)


def write_merged(
    path: Path, name: str, sources: Sequence[ShardSource], *, d_model: int, codec: str | None,
    advance: Callable[[int], None] = lambda _: None,
) -> ShardEntry:
    """Write the shard `path` from others, which follow each other, and say how the manifest names it, as `name`.

    `advance` is told how many passages come to be copied. Raises StoreError where a passage is not what was written.
    """
    shards = [source.open(d_model, codec) for source in sources]
    lengths = np.concatenate([_live_lengths(source, shard) for source, shard in zip(sources, shards, strict=True)])
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    tensors = shard_tensors(len(lengths), int(offsets[-1]), d_model, codec)
    checksums = np.zeros(len(lengths), np.uint32)
    first = 0
    with ShardFile(path, tensors) as merged:
        merged.write(OFFSETS, 0, offsets)
        for source, shard in zip(sources, shards, strict=True):
            for start, stop in live_runs(source.entry.num_passages, source.dead):
                for row in range(start, stop, PASSAGES_AT_ONCE):
                    end = min(row + PASSAGES_AT_ONCE, stop)
                    checksums[first + row : first + end] = list(_checked(source, shard, row, end))
                    _copy(merged, shard, row, end, to_row=first + row, to_token=int(offsets[first + row]))
                    advance(end - row)
            first += source.entry.num_passages
        merged.write(CHECKSUMS, 0, checksums)
    return ShardEntry(
        FileEntry.named(name, path), len(lengths), int(offsets[-1]), sources[0].entry.first,
        int(np.count_nonzero(lengths == 0)), checksums=True,
    )


def live_runs(num_passages: int, dead: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """First row, and the row after the last, of each run of a shard between its `dead` rows (n,), which rise."""
    start = 0
    for row in [*dead.tolist(), num_passages]:
        if row > start:
            yield start, row
        start = row + 1


def _live_lengths(source: ShardSource, shard: Shard) -> NDArray[np.int64]:
    """Tokens of each passage (passages,), 0 of a deleted one."""
    lengths = np.diff(shard.offsets)
    lengths[source.dead] = 0
    return lengths


def _checked(source: ShardSource, shard: Shard, start: int, stop: int) -> Iterator[int]:
    """The checksums of some rows, which they have."""
    for row in range(start, stop):
        if shard.checksums is None:
            yield passage_checksum(shard.parts(row))
        elif not shard.is_sound(row):
            raise StoreError(
                f"shard {source.path}, passage number {source.entry.first + row}",
                expected="the bytes that were written", found="a checksum that does not fit", fix="",
            )
        else:
            yield int(shard.checksums[row])


def _copy(merged: ShardFile, shard: Shard, start: int, stop: int, *, to_row: int, to_token: int) -> None:
    begin, end = shard.offsets[start], shard.offsets[stop]
    by_token: dict[str, Array] = {INPUT_IDS: shard.input_ids, **shard.by_token}
    for name, values in by_token.items():
        merged.write(name, to_token, values[begin:end])
    for name, values in shard.by_passage.items():
        merged.write(name, to_row, values[start:stop])
