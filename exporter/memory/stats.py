"""What a store consists of, and what it keeps on the disk for readers of earlier generations."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.exporter.files.whole_file import held_alone
from glimmer_export.exporter.memory.full_text import engine_warnings
from glimmer_export.exporter.memory.generations import older_generations
from glimmer_export.exporter.memory.journal import held_bytes
from glimmer_export.exporter.memory.quantise import search_warnings
from glimmer_export.runtime.contract import FileEntry, StoreError, read_shards
from glimmer_export.runtime.contract.dense_layout import adopted_vectors
from glimmer_export.runtime.contract.kinds import STORE, require_kind
from glimmer_export.runtime.contract.store_layout import older_manifest_name
from glimmer_export.runtime.generation import held_manifest, read_tombstones

__all__ = ["StoreStats", "store_stats"]


@dataclass(frozen=True)
class StoreStats:
    """Counts of a store, and sizes of its files in bytes.

    `deleted` passages have a number still, `empty_rows` of them no tokens in their shards any more; `texts_left` are in
    the texts, though deleted. `segments` are those of tantivy's index. `vectors` are of passages that are there,
    `without_vector` of these have none, both None in a store without vectors; `vectors_bytes` are with their encoder.
    `older` generations are kept: those in `open` by who has the store open, the others until the next change.
    `older_bytes` are of files that these alone name.
    """

    generation: int
    codec: str | None
    engine: str
    passages: int
    deleted: int
    empty_rows: int
    texts_left: int
    tokens: int
    shards: int
    shard_lists: int
    texts_files: int
    segments: int
    shard_bytes: int
    texts_bytes: int
    index_bytes: int
    vectors: int | None
    without_vector: int | None
    vector_segments: int
    vectors_bytes: int
    older: tuple[int, ...]
    open: tuple[int, ...]
    older_bytes: int
    warnings: tuple[str, ...]


def store_stats(store: str | Path) -> StoreStats:
    """Count a store by its manifest and lists; no shard is opened.

    Raises StoreError where there is no store, or its manifest or a list cannot be read.
    """
    store = Path(store)
    require_kind(store, STORE, error=StoreError)
    with held_manifest(store) as held:
        manifest = adopted_vectors(store, held)
        lacking = None
        if manifest.vectors is not None:
            dead = read_tombstones(store, manifest)
            lacking = manifest.vectors.num_lacking(manifest.num_numbers, dead)
        shards = read_shards(store, manifest)
        older = older_generations(store, manifest.generation)
        return StoreStats(
            generation=manifest.generation,
            codec=manifest.codec,
            engine=manifest.index.engine,
            passages=manifest.num_passages,
            deleted=manifest.num_tombstones,
            empty_rows=sum(shard.num_empty for shard in shards),
            texts_left=sum(part.num_passages for part in manifest.texts) - manifest.num_passages,
            tokens=manifest.num_tokens,
            shards=len(shards),
            shard_lists=len(manifest.shard_lists),
            texts_files=len(manifest.texts),
            segments=len(manifest.segments),
            shard_bytes=_bytes(shard.file for shard in shards),
            texts_bytes=_bytes(part.file for part in manifest.texts),
            index_bytes=_bytes(file for segment in manifest.segments for file in segment.files),
            vectors=None if lacking is None else manifest.num_passages - lacking,
            without_vector=lacking,
            vector_segments=len(manifest.vectors.segments) if manifest.vectors else 0,
            vectors_bytes=_bytes(manifest.vector_files()),
            older=tuple(older),
            open=tuple(generation for generation in older if _is_open(store, generation)),
            older_bytes=held_bytes(store),
            warnings=(
                *engine_warnings(manifest.index.engine, manifest.num_passages), *search_warnings(manifest.vectors)
            ),
        )


def _bytes(files: Iterable[FileEntry]) -> int:
    return sum(file.bytes for file in files)


def _is_open(store: Path, generation: int) -> bool:
    with suppress(OSError), held_alone(store / older_manifest_name(generation), os.O_RDONLY | os.O_NONBLOCK) as free:
        return not free
    return False
