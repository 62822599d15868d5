"""The texts and the index of a store after a change: what was added is a part of each, with small ones before it.

Files of texts and segments of the index merge apart: a segment costs every question something, a file of texts nothing,
so that texts are written again less often. FTS5 has one file for both, which a change writes whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.memory.commit import Change
from glimmer_export.exporter.memory.full_text import SEGMENT_PASSAGES, write_segment
from glimmer_export.exporter.memory.merge_policy import SEGMENT_PARTS, merged_from, small_runs
from glimmer_export.exporter.memory.texts import PART_PASSAGES, Numbered, change_texts, read_live, write_texts_part
from glimmer_export.runtime.contract import SegmentEntry, TextsEntry
from glimmer_export.runtime.contract.store_layout import segment_name, texts_name, texts_part_name

__all__ = ["changed_index", "changed_texts", "packed_index", "packed_texts"]


def changed_texts(
    change: Change, *, deleted: Sequence[int] = (), added: Numbered = (), num_added: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[TextsEntry, ...]:
    """Stage the texts that a change writes, and give the `texts` of its manifest.

    `added` are numbered from the store's end on. `advance` is told how many passages FTS5 has written or deleted.
    Raises StoreError where a file that is copied is damaged, and as `write_texts`.
    """
    before, end = change.manifest.texts, change.manifest.num_numbers
    if change.full_text():
        return (_whole(change, deleted, added, num_added, advance),)
    if not num_added:
        return before
    sizes = [part.num_numbers for part in before]
    start = 0 if sizes == [0] else merged_from([*sizes, num_added], PART_PASSAGES)
    merged, dead = before[start:], change.dead_with(deleted)
    change.check_texts(merged)
    first = merged[0].first if merged else end
    new = write_texts_part(
        change.staged, texts_part_name(change.generation, 0), chain(read_live(change.place, merged, dead), added),
        first=first, num_numbers=end + num_added - first,
    )
    return (*before[:start], new)


def changed_index(
    change: Change, texts: Sequence[TextsEntry], *, deleted: Sequence[int] = (), num_added: int = 0,
    advance: Callable[[int], None],
) -> tuple[SegmentEntry, ...]:
    """Stage what a change writes of tantivy's index of `texts`, those after the change, and give its `segments`.

    `advance` is told how many passages were written, or deleted. Raises as `changed_texts`.
    """
    before, end = change.manifest.segments, change.manifest.num_numbers
    if change.full_text():
        return ()
    advance(len(deleted))
    if not num_added:
        return before
    sizes = [segment.num_numbers for segment in before]
    start = 0 if sizes == [0] else merged_from([*sizes, num_added], SEGMENT_PASSAGES, SEGMENT_PARTS)
    first = before[start].first if start < len(before) else end
    new = _indexed(change, texts, change.dead_with(deleted), 0, range(first, end + num_added), advance)
    return (*before[:start], new)


def packed_texts(change: Change) -> tuple[TextsEntry, ...]:
    """Stage texts in the place of those that have lost passages since they were written, or are small.

    Gives those of the manifest: the store's own where there is nothing to do. FTS5's have lost theirs already.
    """
    before, result, place = change.manifest.texts, list[TextsEntry](), 0
    runs = [] if change.full_text() else _runs(before, change.tombstones, PART_PASSAGES)
    for index, run in enumerate(runs):
        merged = before[run.start : run.stop]
        change.check_texts(merged)
        new = write_texts_part(
            change.staged, texts_part_name(change.generation, index),
            read_live(change.place, merged, change.tombstones), first=merged[0].first,
            num_numbers=merged[-1].end - merged[0].first,
        )
        result += [*before[place : run.start], new]
        place = run.stop
    return (*result, *before[place:])


def packed_index(
    change: Change, texts: Sequence[TextsEntry], *, advance: Callable[[int], None]
) -> tuple[SegmentEntry, ...]:
    """Stage segments of the index of `texts` in the place of those that have lost passages, or are small."""
    before, result, place = change.manifest.segments, list[SegmentEntry](), 0
    for index, run in enumerate(_runs(before, change.tombstones, SEGMENT_PASSAGES)):
        numbers = range(before[run.start].first, before[run.stop - 1].end)
        result += [*before[place : run.start], _indexed(change, texts, change.tombstones, index, numbers, advance)]
        place = run.stop
    return (*result, *before[place:])


def _runs(parts: Sequence[TextsEntry | SegmentEntry], tombstones: NDArray[np.int64], most: int) -> list[range]:
    """Places of parts that are each to be one: small neighbours, and whatever has lost passages, on its own."""
    runs = small_runs([part.num_numbers for part in parts], most)
    covered = {place for run in runs for place in run}
    for place, part in enumerate(parts):
        dead = int(np.diff(tombstones.searchsorted([part.first, part.end]))[0])
        if place not in covered and dead > part.num_numbers - part.num_passages:
            runs.append(range(place, place + 1))
    return sorted(runs, key=lambda run: run.start)


def _indexed(
    change: Change, texts: Sequence[TextsEntry], dead: NDArray[np.int64], place: int, numbers: range,
    advance: Callable[[int], None],
) -> SegmentEntry:
    """One segment of the passages of these numbers, as the `place`-th of the change."""
    change.check_texts(part for part in texts if part.first < numbers.stop and numbers.start < part.end)
    return write_segment(
        change.staged, segment_name(change.generation, place),
        read_live(change.place, texts, dead, numbers.start, numbers.stop), first=numbers.start,
        num_numbers=len(numbers), folding=change.manifest.index.folding, advance=advance,
    )


def _whole(
    change: Change, deleted: Sequence[int], added: Numbered, num_added: int, advance: Callable[[int], None]
) -> TextsEntry:
    before, name, anew = change.manifest, texts_name(change.generation), change.folded_otherwise()
    (only,) = before.texts
    change.check(only.file)
    change_texts(
        change.store / only.file.path, change.staged / name, deleted=deleted, added=added,
        first_added=before.num_numbers, advance=advance, folding=change.folding(), anew=anew,
    )
    passages = before.num_passages + num_added - len(deleted)
    numbers = before.num_numbers + num_added
    return TextsEntry(change.entry(name), 0, numbers, passages, checksums=anew or only.checksums)
