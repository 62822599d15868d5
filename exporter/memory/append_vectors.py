"""Vectors of the passages that an append adds, by the store's own copy of the sentence encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from glimmer_export.exporter.memory.commit import Change
from glimmer_export.exporter.memory.vector_segments import NewVectors, added_vectors
from glimmer_export.exporter.memory.vectors import encoded_rows
from glimmer_export.runtime.contract import BackendError, MissingExtraError, StoreError
from glimmer_export.runtime.contract.vector_layout import EncoderEntry, VectorsEntry
from glimmer_export.runtime.passage_texts import Passage
from glimmer_export.runtime.retrieval.encoder import SentenceEncoder

__all__ = ["OpenEncoder", "appended_vectors"]

BATCH_SIZE, AT_ONCE = 32, 512
OpenEncoder = Callable[[Path, EncoderEntry, int | None], SentenceEncoder]


def appended_vectors(
    change: Change, passages: Iterable[Passage], num_added: int, *, deleted: Sequence[int], threads: int | None,
    opened: OpenEncoder, advance: Callable[[int], None],
) -> tuple[VectorsEntry | None, tuple[str, ...]]:
    """Stage vectors of the passages that are numbered from the store's end on, where the store has vectors.

    Gives what the manifest says of vectors, and a warning where the new passages have none, since the store's were
    given, or its encoder cannot be loaded here. `advance` is told how many vectors were written. Raises EmbeddingsError
    for a passage that the encoder cannot encode.
    """
    before = change.manifest.vectors
    if before is None or not num_added:
        return before, ()
    if before.encoder is None:
        return before, (_lacking(change.store, num_added, "the store's vectors were given, with no encoder"),)
    try:
        encoder = opened(change.store, before.encoder, threads)
    except (BackendError, MissingExtraError, StoreError) as error:
        return before, (_lacking(change.store, num_added, f"the encoder cannot be loaded: {error}"),)
    first = change.manifest.num_numbers
    covered = range(first, first + num_added)
    rows = encoded_rows(encoder, _parts(passages), BATCH_SIZE)
    new = NewVectors(covered, np.arange(covered.start, covered.stop), rows)
    return added_vectors(change, before, [new], deleted=deleted, advance=advance), ()


def _lacking(store: Path, count: int, reason: str) -> str:
    return (
        f"{count:,} new passages have no vector, and `--retrieval dense` does not find them: {reason}; `glimmer-export "
        f"memory index {store}`, with --encoder or --embeddings as before, makes those that are lacking"
    )


def _parts(passages: Iterable[Passage]) -> Iterator[list[Passage]]:
    left = iter(passages)
    while part := list(islice(left, AT_ONCE)):
        yield part
