"""The segments of a store's vectors after a change: what was added is one, merged with the small ones before it."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.memory.commit import Change
from glimmer_export.exporter.memory.texts import SEGMENT_PASSAGES
from glimmer_export.exporter.memory.tiers import small_runs, to_merge
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract.vector_layout import VectorSegmentEntry, VectorsEntry, vectors_name
from glimmer_export.runtime.retrieval.dense import VectorSegment

__all__ = ["NewVectors", "added_vectors", "packed_vectors"]

AT_ONCE = 4096


@dataclass(frozen=True)
class NewVectors:
    """Vectors of `numbers` (n,) int64, rising: chunks (rows, dimension) float32 in their order.

    The numbers of `covered` that are not among them are deleted; no segment covers one of these.
    """

    covered: range
    numbers: NDArray[np.int64]
    chunks: Iterable[Array]


def added_vectors(
    change: Change, before: VectorsEntry, added: Iterable[NewVectors], *, deleted: Sequence[int] = (),
    advance: Callable[[int], None] = lambda _: None,
) -> VectorsEntry:
    """Stage what was added, in the order of its numbers, and give what the manifest says of the vectors then.

    Where `before` has a dimension of 0, it has that of the first chunk. `advance` is told how many vectors were
    written. Raises StoreError where a file that is merged is damaged, and what reading the chunks raises.
    """
    writer = _Writer(change, before.dimension, np.union1d(change.tombstones, np.array(deleted, np.int64)), advance)
    segments = list(before.segments)
    for new in added:
        place = sum(segment.first < new.covered.start for segment in segments)
        start = place
        if place == len(segments):  # what comes later is merged; what fills a gap is left to `compact`
            start = _merged_from(segments, new.covered)
        segments[start:place] = writer.write(segments[start:place], new)
    return dataclasses.replace(before, dimension=writer.dimension, segments=tuple(segments))


def packed_vectors(change: Change) -> VectorsEntry | None:
    """Stage segments in the place of those that have lost passages since they were written, or are small.

    Gives what the manifest says then: what the store's own does where there is nothing to do. Raises StoreError where a
    file that is copied is damaged.
    """
    before = change.manifest.vectors
    if before is None:
        return None
    writer = _Writer(change, before.dimension, change.tombstones, lambda _: None)
    segments: list[VectorSegmentEntry] = []
    for group in _neighbours(before.segments):
        runs = small_runs([segment.num_numbers for segment in group], SEGMENT_PASSAGES)
        covered = {place for run in runs for place in run}
        runs += [range(place, place + 1) for place, part in enumerate(group)
                 if place not in covered and writer.has_lost(part)]
        place = 0
        for run in sorted(runs, key=lambda run: run.start):
            segments += [*group[place : run.start], *writer.write(group[run.start : run.stop])]
            place = run.stop
        segments += group[place:]
    return dataclasses.replace(before, segments=tuple(segments))


def _merged_from(segments: Sequence[VectorSegmentEntry], covered: range) -> int:
    """The place of the first of those that are to be one with what is added behind them."""
    last = next(iter(reversed(_neighbours(segments))), [])
    if not last or last[-1].end != covered.start:
        return len(segments)
    runs = to_merge([*(segment.num_numbers for segment in last), len(covered)], SEGMENT_PASSAGES)
    start = runs[-1].start if runs and runs[-1].stop > len(last) else len(last)
    return len(segments) - len(last) + start


def _neighbours(segments: Sequence[VectorSegmentEntry]) -> list[list[VectorSegmentEntry]]:
    """The segments, in groups without a gap between them."""
    groups: list[list[VectorSegmentEntry]] = []
    for segment in segments:
        if groups and groups[-1][-1].end == segment.first:
            groups[-1].append(segment)
        else:
            groups.append([segment])
    return groups


class _Writer:
    """Writes segments of a store without the numbers `dead`; `dimension` 0 is that of the first vectors."""

    def __init__(
        self, change: Change, dimension: int, dead: NDArray[np.int64], advance: Callable[[int], None]
    ) -> None:
        self.dimension = dimension
        self._change, self._dead, self._advance = change, dead, advance
        self._written = 0

    def has_lost(self, segment: VectorSegmentEntry) -> bool:
        """Whether it holds vectors of passages that are deleted."""
        return self._open(segment).num_live < segment.num_vectors

    def write(
        self, parts: Sequence[VectorSegmentEntry], new: NewVectors | None = None
    ) -> list[VectorSegmentEntry]:
        """Stage one segment of the live vectors of `parts`, and of new ones; none where there are no vectors."""
        for part in parts:
            self._change.check(*part.files())
        opened = [self._open(part) for part in parts]
        rows = [self._live_rows(segment) for segment in opened]
        numbers = [segment.numbers_of(live) for segment, live in zip(opened, rows, strict=True)]
        chunks = chain.from_iterable(map(_chunks, opened, rows))
        first, stop = (parts[0].first, parts[-1].end) if parts else (0, 0)
        if new is not None:
            first, stop = (first if parts else new.covered.start), new.covered.stop
            numbers, chunks = [*numbers, new.numbers], chain(chunks, new.chunks)
        total = np.concatenate(numbers)
        if not len(total):
            return []
        name = vectors_name(self._change.generation, self._written)
        (self._change.staged / name).parent.mkdir(exist_ok=True)
        self._write_rows(name, len(total), chunks)
        listed = None
        if len(total) != stop - first:
            listed = vectors_name(self._change.generation, self._written, "-numbers")
            with (self._change.staged / listed).open("wb") as stream:
                np.save(stream, total, allow_pickle=False)
        self._written += 1
        return [VectorSegmentEntry(
            first, stop - first, len(total), self._change.entry(name), None if listed is None
            else self._change.entry(listed),
        )]

    def _open(self, segment: VectorSegmentEntry) -> VectorSegment:
        return VectorSegment.open(self._change.store, self.dimension, segment, self._dead)

    def _live_rows(self, segment: VectorSegment) -> NDArray[np.int64]:
        rows = np.arange(len(segment.embeddings))
        live: NDArray[np.int64] = rows[~np.isin(segment.numbers_of(rows), self._dead, assume_unique=True)]
        return live

    def _write_rows(self, name: str, num_rows: int, chunks: Iterable[Array]) -> None:
        """Write a .npy file of float32, (num_rows, dimension), chunk by chunk."""
        with (self._change.staged / name).open("wb") as stream:
            begun = False
            for chunk in chunks:
                self.dimension = self.dimension or chunk.shape[1]
                if not begun:
                    header = {"descr": "<f4", "fortran_order": False, "shape": (num_rows, self.dimension)}
                    np.lib.format.write_array_header_1_0(stream, header)
                    begun = True
                stream.write(np.ascontiguousarray(chunk, "<f4").tobytes())
                self._advance(len(chunk))
            stream.flush()
            os.fsync(stream.fileno())


def _chunks(segment: VectorSegment, rows: NDArray[np.int64]) -> Iterator[Array]:
    for start in range(0, len(rows), AT_ONCE):
        yield segment.embeddings[rows[start : start + AT_ONCE]]
