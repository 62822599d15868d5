"""Every file of a store against what its manifest says of it, and for each that is damaged how to make it again."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glimmer_export.exporter.memory.generations import damaged_replicas, older_generations, unnamed_files
from glimmer_export.exporter.memory.texts import read_texts, stored_numbers
from glimmer_export.exporter.report.progress import progress_bar
from glimmer_export.runtime.bundle import verify_file
from glimmer_export.runtime.codec_file import open_store_codec
from glimmer_export.runtime.contract import (
    CODEC_ARRAYS,
    MANIFEST,
    FileEntry,
    ShardEntry,
    StoreError,
    StoreManifest,
    TextsEntry,
    is_volume_part,
    read_store_manifest,
)
from glimmer_export.runtime.contract.dense_layout import DENSE, read_dense_manifest
from glimmer_export.runtime.contract.shard_layout import entry_tensors
from glimmer_export.runtime.contract.store_layout import older_manifest_name
from glimmer_export.runtime.contract.store_manifest import manifest_replica, read_shard_list
from glimmer_export.runtime.contract.store_mending import made_again
from glimmer_export.runtime.contract.vector_layout import VectorSegmentEntry
from glimmer_export.runtime.generation import held_manifest, read_tombstones, read_tombstones_file
from glimmer_export.runtime.retrieval.dense import VectorSegment, vector_checksum
from glimmer_export.runtime.shards import Shard, open_shard

__all__ = ["Damage", "VerifyReport", "damaged_files", "verify_store"]


@dataclass(frozen=True)
class Damage:
    """A file that is not what its manifest says, and how to rebuild it alone."""

    path: str
    expected: str
    found: str
    fix: str


@dataclass(frozen=True)
class VerifyReport:
    """What was checked: `files`, of `bytes` in all. `generation` is None where the manifest cannot be read.

    `older` generations are there too; `unnamed` files belong to none, and the next change removes those that a killed
    one has left.
    """

    generation: int | None
    files: int
    bytes: int
    damaged: tuple[Damage, ...]
    older: tuple[int, ...]
    unnamed: tuple[str, ...]
    seconds: float


def verify_store(store: str | Path, *, progress: bool = False) -> VerifyReport:
    """Read a store from end to end; a change that is made meanwhile is not looked at, and removes nothing.

    Raises StoreError where there is no store at all.
    """
    started, store = time.monotonic(), Path(store)
    try:
        with held_manifest(store) as manifest:
            return _verified(store, manifest, started, progress=progress)
    except StoreError as error:  # of the manifest alone: that of other files is reported
        if not (store / "shards").is_dir():
            raise
        damage = Damage(MANIFEST, error.expected, error.found, _fix(store, None, MANIFEST))
        older = tuple(older_generations(store, -1))
        return VerifyReport(None, 1, 0, (damage,), older, (), time.monotonic() - started)


def _verified(store: Path, manifest: StoreManifest, started: float, *, progress: bool) -> VerifyReport:
    entries = {entry.path: entry for entry in _legible_files(store, manifest)}
    with progress_bar("Verifying", manifest.num_numbers, shown=progress) as advance:
        damaged = list(damaged_files(store, manifest, advance=advance))
    damaged += _damage_of_replicas(store, manifest)
    damaged += _damage_of_older(store, manifest, entries)
    damaged += _damage_of_vectors(store, manifest, entries)
    try:
        unnamed = tuple(unnamed_files(store, manifest))
    except StoreError:  # of an older manifest: in `damaged`
        unnamed = ()
    return VerifyReport(
        manifest.generation, len(entries), sum(entry.bytes for entry in entries.values()), tuple(damaged),
        tuple(older_generations(store, manifest.generation)), unnamed, time.monotonic() - started,
    )


def damaged_files(
    store: Path, manifest: StoreManifest, *, seen: Collection[str] = (), advance: Callable[[int], None] = lambda _: None
) -> Iterator[Damage]:
    """The damaged ones of the files that a manifest names, but for those at `seen` paths.

    `advance` is told how many passages a file that was read has memory of.
    """
    texts = {part.file.path: part for part in manifest.texts}
    tombstones = {part.file.path: part for part in manifest.tombstone_files}
    for part in manifest.shard_lists:
        if part.file.path in seen:
            continue
        try:
            listed = read_shard_list(store, manifest, part)
        except StoreError as error:
            yield Damage(part.file.path, error.expected, error.found, _fix(store, manifest, part.file.path))
        else:
            yield from _damaged_shards(store, manifest, listed, seen, advance)
    yield from _damaged_shards(store, manifest, manifest.shards, seen, advance)
    known = {shard.file.path for shard in manifest.shards} | {part.file.path for part in manifest.shard_lists}
    known |= {file.path for file in manifest.vector_files()}  # which nothing else depends on
    for entry in manifest.files():
        if entry.path in seen or entry.path in known:
            continue
        try:
            verify_file(store, entry, error=StoreError, subject=f"store {store}", fix="")
            if entry == manifest.codec_arrays:
                open_store_codec(store, manifest)
            elif entry.path in tombstones:
                read_tombstones_file(store, manifest, tombstones[entry.path])
            elif entry.path in texts:
                _check_numbers(store, manifest, texts[entry.path])
        except StoreError as error:
            yield Damage(entry.path, error.expected, error.found, _fix(store, manifest, entry.path))


def _damaged_shards(
    store: Path, manifest: StoreManifest, shards: Sequence[ShardEntry], seen: Collection[str],
    advance: Callable[[int], None],
) -> Iterator[Damage]:
    for shard in shards:
        entry = shard.file
        if entry.path not in seen:
            try:
                verify_file(store, entry, error=StoreError, subject=f"store {store}", fix="")
                tensors = entry_tensors(shard, manifest.d_model, manifest.codec)
                opened = open_shard(store / entry.path, tensors, num_empty=shard.num_empty)
                _check_passages(opened, shard)
            except StoreError as error:
                yield Damage(entry.path, error.expected, error.found, _fix(store, manifest, entry.path))
        advance(shard.num_passages)


def _check_passages(opened: Shard, shard: ShardEntry) -> None:
    """Raise StoreError where a checksum was written that a reader would not find: of bytes that are as written."""
    lengths = np.diff(opened.offsets)
    wrong = [row for row in np.flatnonzero(lengths).tolist() if not opened.is_sound(row)]
    if wrong:
        raise StoreError(
            shard.file.path, expected="a checksum of each passage",
            found=f"another of passage number {shard.first + wrong[0]}", fix="",
        )


def _legible_files(store: Path, manifest: StoreManifest) -> list[FileEntry]:
    """The files that a manifest names, and those that its lists name which can be read."""
    files = manifest.files()
    for part in manifest.shard_lists:
        with suppress(StoreError):  # in `damaged`
            files += [shard.file for shard in read_shard_list(store, manifest, part)]
    return files


def _check_numbers(store: Path, manifest: StoreManifest, texts: TextsEntry) -> None:
    """Raise StoreError where texts are not those of all their passages but deleted ones, or have other checksums."""
    path = store / texts.file.path
    if texts.checksums:
        numbers = np.fromiter((number for number, _ in read_texts(path, checks=True)), np.int64)
    else:
        numbers = stored_numbers(path)
    try:
        deleted = read_tombstones(store, manifest)
    except StoreError:  # said of their own file
        return
    # The count first: what the manifest says is not yet known to be so many.
    least, beyond = len(numbers) and numbers[0], len(numbers) and numbers[-1]
    if len(numbers) != texts.num_passages or not texts.first <= least <= beyond < max(texts.end, 1) or len(
        np.setdiff1d(
            np.setdiff1d(np.arange(texts.first, texts.end), deleted, assume_unique=True), numbers,
            assume_unique=True,
        )
    ):
        raise StoreError(
            texts.file.path, expected=f"{texts.num_passages} passages, all but deleted ones",
            found=f"{len(numbers)} passages", fix="",
        )


def _damage_of_older(store: Path, manifest: StoreManifest, seen: dict[str, FileEntry]) -> Iterator[Damage]:
    """Damage of what only older generations name; `seen` entries were checked, and gain what is checked here."""
    for generation in older_generations(store, manifest.generation):
        name = older_manifest_name(generation)
        try:
            older = read_store_manifest(store, name)
        except StoreError as error:
            if os.path.lexists(store / name):  # and was not removed just now
                fix = _fix(store, None, name)
                if manifest_replica(store, generation) is not None:
                    fix = f"restore it with `glimmer-export memory repair {store}`, or {fix}"
                yield Damage(name, error.expected, error.found, fix)
            continue
        for damage in damaged_files(store, older, seen=seen):
            if (store / name).exists():
                yield Damage(damage.path, damage.expected, damage.found, _fix(store, None, name))
        seen.update((entry.path, entry) for entry in _legible_files(store, older))


def _damage_of_replicas(store: Path, manifest: StoreManifest) -> Iterator[Damage]:
    for name in damaged_replicas(store, manifest):
        fix = f"write it again with `glimmer-export memory repair {store}`"
        yield Damage(name, "the bytes that it was written with", "bytes that its digest does not fit", fix)


def _damage_of_vectors(store: Path, manifest: StoreManifest, seen: dict[str, FileEntry]) -> Iterator[Damage]:
    """Damage of what the manifest of the store's vectors names, if there are any; `seen` gains what is checked here.

    Vectors of an earlier generation cannot be searched, nor those beside which something else lies.
    """
    fix = f"make the vectors again: `glimmer-export memory index {store} --overwrite`, with what they were made from"
    if manifest.vectors is not None:
        checksums = {part.checksums: part for part in manifest.vectors.segments if part.checksums}
        damaged = set[FileEntry]()
        for entry in manifest.vector_files():
            try:
                verify_file(store, entry, error=StoreError, subject=f"store {store}", fix="")
                if entry in checksums and checksums[entry].embeddings not in damaged:
                    _check_vectors(store, manifest.vectors.dimension, checksums[entry])
            except StoreError as error:
                damaged.add(entry)
                yield Damage(entry.path, error.expected, error.found, fix)
        return
    if not (store / DENSE).is_dir():
        return
    try:
        dense = read_dense_manifest(store, manifest)
    except StoreError as error:
        yield Damage(f"{DENSE}/{MANIFEST}", error.expected, error.found, fix)
        return
    named = {f"{DENSE}/{entry.path}": entry for entry in dense.files()}
    for path, entry in named.items():
        try:
            verify_file(store / DENSE, entry, error=StoreError, subject=f"store {store}", fix="")
        except StoreError as error:
            yield Damage(path, error.expected, error.found, fix)
    seen.update(named)
    below = (path.relative_to(store) for path in (store / DENSE).rglob("*") if not path.is_dir())
    found = {path.as_posix() for path in below if not is_volume_part(path)}
    for path in sorted(found - {*named, f"{DENSE}/{MANIFEST}"}):
        yield Damage(path, "only the files of its manifest", "a file that it does not name", f"remove it, or {fix}")


def _check_vectors(store: Path, dimension: int, segment: VectorSegmentEntry) -> None:
    """Raise StoreError where a checksum was written that a reader would not find: of bytes that are as written."""
    opened = VectorSegment.open(store, dimension, segment, np.empty(0, np.int64))
    assert opened.checksums is not None
    for row, (vector, checksum) in enumerate(zip(opened.embeddings, opened.checksums.tolist(), strict=True)):
        if vector_checksum(vector) != checksum:
            raise StoreError(str(store), expected="a checksum of each vector", found=f"another of row {row}", fix="")


def _fix(store: Path, manifest: StoreManifest | None, path: str) -> str:
    """How to make a file again; `manifest` None: one that the current generation does not name."""
    repair = f"glimmer-export memory repair {store}"
    if path == MANIFEST and manifest_replica(store) is not None:
        return f"restore it with `{repair}`"
    if path != MANIFEST and manifest is None:
        return f"remove the older generation with `glimmer-export memory compact {store}`"
    if manifest is not None and (again := made_again(store, manifest, path)) is not None:
        return again
    if manifest is not None and path == CODEC_ARRAYS:  # which every generation names
        return "copy it from another copy of the store, or build the store again"
    return f"go back to an older generation with `{repair} --rollback`, or build the store again"
