"""The segments of a store's texts after a change: what was added is one, merged with the small ones before it.

FTS5 has one segment, its index in the file of texts, which a change writes whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain

import numpy as np

from glimmer_export.exporter.memory.commit import Change
from glimmer_export.exporter.memory.merge_policy import SEGMENT_PARTS, merged_from, small_runs
from glimmer_export.exporter.memory.texts import SEGMENT_PASSAGES, change_texts, read_live, write_segment
from glimmer_export.runtime.contract import SegmentEntry
from glimmer_export.runtime.contract.store_layout import segment_name, texts_name
from glimmer_export.runtime.store import Passage

__all__ = ["changed_segments", "packed_segments"]

Numbered = Iterable[tuple[int, Passage]]


def changed_segments(
    change: Change, *, deleted: Sequence[int] = (), added: Numbered = (), num_added: int = 0,
    advance: Callable[[int], None],
) -> tuple[SegmentEntry, ...]:
    """Stage what a change needs, and give the segments of its manifest.

    `added` are numbered from the store's end on. `advance` is told how many passages were written or deleted. Raises
    StoreError where a file that is copied is damaged, and as `write_texts`.
    """
    before = change.manifest
    if change.full_text():
        return (_whole(change, deleted, added, num_added, advance),)
    advance(len(deleted))
    if not num_added:
        return before.segments
    sizes = [segment.num_numbers for segment in before.segments]
    lost_all = sizes == [0]  # as earlier versions left it: no segment but the only one may be empty
    start = 0 if lost_all else merged_from([*sizes, num_added], SEGMENT_PASSAGES, SEGMENT_PARTS)
    return tuple(_merged(change, [range(start, len(sizes) + 1)], deleted, added, num_added, advance))


def packed_segments(change: Change, *, advance: Callable[[int], None]) -> tuple[SegmentEntry, ...]:
    """Stage segments in the place of those that have lost passages since they were written, or are small.

    Gives those of the manifest: the store's own where there is nothing to do.
    """
    before, tombstones = change.manifest, change.tombstones
    dead = [int(np.diff(tombstones.searchsorted([part.first, part.end]))[0]) for part in before.segments]
    has_lost = [
        dead[place] > part.num_numbers - part.num_passages for place, part in enumerate(before.segments)
    ]
    if change.full_text():
        return before.segments  # its rows are gone already
    runs = small_runs([part.num_numbers for part in before.segments], SEGMENT_PASSAGES)
    covered = {place for run in runs for place in run}
    runs += [range(place, place + 1) for place, lost in enumerate(has_lost) if lost and place not in covered]
    if not runs:
        return before.segments
    return tuple(_merged(change, sorted(runs, key=lambda run: run.start), (), (), 0, advance))


def _whole(
    change: Change, deleted: Sequence[int], added: Numbered, num_added: int, advance: Callable[[int], None]
) -> SegmentEntry:
    before, name = change.manifest, texts_name(change.generation)
    (only,) = before.segments
    change.check(only.texts)
    change_texts(
        change.store / only.texts.path, change.staged / name, deleted=deleted, added=added,
        first_added=before.num_numbers, advance=advance, folding=change.folding(), anew=change.folded_otherwise(),
    )
    passages = before.num_passages + num_added - len(deleted)
    return SegmentEntry(0, before.num_numbers + num_added, passages, change.entry(name))


def _merged(
    change: Change, runs: Sequence[range], deleted: Sequence[int], added: Numbered, num_added: int,
    advance: Callable[[int], None],
) -> Iterator[SegmentEntry]:
    """The segments, with each run of them written as one; the place after the last stands for what is added."""
    segments, end = change.manifest.segments, change.manifest.num_numbers
    dead = np.union1d(change.tombstones, np.array(deleted, np.int64))
    place = 0
    for index, run in enumerate(runs):
        yield from segments[place : run.start]
        parts = segments[run.start : run.stop]
        change.check(*(part.texts for part in parts))
        first = parts[0].first if parts else end
        stop = parts[-1].end if parts else end
        passages: Numbered = read_live(change.store, parts, dead)
        if run.stop > len(segments):
            passages, stop = chain(passages, added), end + num_added
        yield write_segment(
            change.staged, segment_name(change.generation, index), passages, first=first, num_numbers=stop - first,
            folding=change.manifest.index.folding, advance=advance,
        )
        place = run.stop
    yield from segments[place:]


