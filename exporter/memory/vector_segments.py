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
from glimmer_export.exporter.memory.full_text import SEGMENT_PASSAGES
from glimmer_export.exporter.memory.merge_policy import merged_from, small_runs
from glimmer_export.exporter.memory.quantise import coded_segment
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract import EmbeddingsError
from glimmer_export.runtime.contract.vector_layout import VectorSegmentEntry, VectorsEntry, vectors_name
from glimmer_export.runtime.retrieval.dense import VectorSegment
from glimmer_export.runtime.retrieval.quantised import Quantiser

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
    half: bool = False, advance: Callable[[int], None] = lambda _: None,
) -> VectorsEntry:
    """Stage what was added, in the order of its numbers, and give what the manifest says of the vectors then.

    Where `before` has a dimension of 0, it has that of the first chunk. To write `half` is to write float16 where that
    keeps the values, as is done wherever there is a quantiser. `advance` is told how many vectors were
    written. Raises StoreError where a file that is merged is damaged, and what reading the chunks raises.
    """
    dead = change.dead_with(deleted)
    writer = _Writer(change, before, dead, advance, half=half)
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
    writer = _Writer(change, before, change.tombstones, lambda _: None)
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
    sizes = [*(segment.num_numbers for segment in last), len(covered)]
    return len(segments) - len(last) + merged_from(sizes, SEGMENT_PASSAGES)


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
        self, change: Change, vectors: VectorsEntry, dead: NDArray[np.int64], advance: Callable[[int], None], *,
        half: bool = False,
    ) -> None:
        self.dimension = vectors.dimension
        self._change, self._vectors, self._dead, self._advance = change, vectors, dead, advance
        self._half = half or vectors.quantiser is not None
        self._quantiser: Quantiser | None = None
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
        dtype = self._write_rows(name, len(total), chunks)
        listed = None
        if len(total) != stop - first:
            listed = vectors_name(self._change.generation, self._written, "-numbers.npy")
            with (self._change.staged / listed).open("wb") as stream:
                np.save(stream, total, allow_pickle=False)
        segment = VectorSegmentEntry(
            first, stop - first, len(total), self._change.entry(name),
            None if listed is None else self._change.entry(listed), dtype,
        )
        if self._vectors.quantiser is not None:
            if self._quantiser is None:
                self._change.check(self._vectors.quantiser.file)
                self._quantiser = Quantiser.open(self._change.store, self._vectors.quantiser)
            segment = coded_segment(self._change, self._vectors, segment, self._quantiser, self._written)
        self._written += 1
        return [segment]

    def _open(self, segment: VectorSegmentEntry) -> VectorSegment:
        return VectorSegment.open(self._change.store, self.dimension, segment, self._dead)

    def _live_rows(self, segment: VectorSegment) -> NDArray[np.int64]:
        rows = np.arange(len(segment.embeddings))
        live: NDArray[np.int64] = rows[~np.isin(segment.numbers_of(rows), self._dead, assume_unique=True)]
        return live

    def _write_rows(self, name: str, num_rows: int, chunks: Iterable[Array]) -> str:
        """Write a .npy file, (num_rows, dimension), chunk by chunk, and give its dtype.

        Raises EmbeddingsError for a value that is beyond what a file of float16 holds.
        """
        dtype = ""
        with (self._change.staged / name).open("wb") as stream:
            for chunk in chunks:
                self.dimension = self.dimension or chunk.shape[1]
                if not dtype:
                    dtype = "float16" if self._half and _keeps_values(chunk) else "float32"
                    header = {
                        "descr": np.dtype(dtype).newbyteorder("<").str, "fortran_order": False,
                        "shape": (num_rows, self.dimension),
                    }
                    np.lib.format.write_array_header_1_0(stream, header)
                with np.errstate(over="ignore"):
                    written = np.ascontiguousarray(chunk, dtype)
                if not np.isfinite(written).all():
                    raise EmbeddingsError(
                        "vectors", expected=f"values that {dtype} holds, as the first of them are",
                        found=f"{np.abs(chunk).max()}", fix="scale the vectors to length 1",
                    )
                stream.write(written.tobytes())
                self._advance(len(chunk))
            stream.flush()
            os.fsync(stream.fileno())
        return dtype


def _keeps_values(chunk: Array) -> bool:
    """Whether these vectors are the same in float16, but for its rounding."""
    with np.errstate(over="ignore"):
        error = np.abs(chunk.astype(np.float16).astype(np.float32) - chunk).max(axis=1)
    return bool((error <= 2.0**-10 * np.abs(chunk).max(axis=1)).all())


def _chunks(segment: VectorSegment, rows: NDArray[np.int64]) -> Iterator[Array]:
    for start in range(0, len(rows), AT_ONCE):
        yield segment.embeddings[rows[start : start + AT_ONCE]]
