"""Write a store's manifest with its replica, and mend one by the other where a byte has flipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from glimmer_export.exporter.file_lock import held_alone
from glimmer_export.exporter.links import require_no_link_below
from glimmer_export.exporter.memory.generations import older_generations
from glimmer_export.exporter.memory.work import work_directory
from glimmer_export.exporter.swap import recover
from glimmer_export.exporter.whole_file import replace_file, write_errors
from glimmer_export.runtime.contract import (
    CODEC_ARRAYS,
    MANIFEST,
    FileEntry,
    StoreError,
    StoreManifest,
    file_digest,
    record_to_json,
)
from glimmer_export.runtime.contract.files import is_there, read_file
from glimmer_export.runtime.contract.records import MAX_JSON_BYTES
from glimmer_export.runtime.contract.store_layout import older_manifest_name
from glimmer_export.runtime.contract.store_manifest import manifest_replica, read_store_manifest
from glimmer_export.runtime.contract.store_mending import codec_replica_is_sound
from glimmer_export.runtime.contract.store_replica import CODEC_REPLICA, REPLICAS, replica_content, replica_name

__all__ = [
    "damaged_replicas", "mend_codec", "mend_manifest", "mend_older", "mend_replicas",
    "put_manifest",
]  # fmt: skip


def put_manifest(store: Path, manifest: StoreManifest) -> None:
    """Make `manifest` the store's, its replica first: whatever stops this, what is in its place has one."""
    content = record_to_json(manifest).encode()
    (store / REPLICAS).mkdir(exist_ok=True)
    _copy_codec(store, manifest)
    replace_file(store / replica_name(manifest.generation), replica_content(content))
    replace_file(store / MANIFEST, content)


def mend_manifest(store: Path) -> bool:
    """Put the replica in the place of a damaged manifest; whether there was one.

    Raises StoreError where no replica can mend it, OutputError where another process changes the store.
    """
    store = Path(os.path.realpath(store))
    with write_errors(store):
        recover(store)
    if _is_readable(store):
        return False
    if manifest_replica(store) is None:
        read_store_manifest(store)  # says what is wrong
    require_no_link_below(store, subject=f"store {store}", error=StoreError)
    with write_errors(store), work_directory(store) as work:
        work.check_ours()
        try:
            replica = manifest_replica(store)
            if _is_readable(store) or replica is None:  # another process has mended it since
                return False
            replace_file(store / MANIFEST, replica.content)
        finally:
            work.remove()
    return True


def mend_codec(store: Path, manifest: StoreManifest) -> bool:
    """Put the replica in the place of damaged codec arrays; False where none can mend them."""
    if not codec_replica_is_sound(store, manifest):
        return False
    replace_file(store / CODEC_ARRAYS, (store / CODEC_REPLICA).read_bytes())
    return True


def mend_older(store: Path, manifest: StoreManifest) -> list[str]:
    """Put replicas in the places of damaged manifests of older generations, and say of which.

    One that a process holds stays, since its lock would stay with what was replaced.
    """
    mended = []
    for generation in older_generations(store, manifest.generation):
        name, replica = older_manifest_name(generation), manifest_replica(store, generation)
        if replica is not None and not _is_readable(store, name):
            with held_alone(store / name, os.O_RDONLY | os.O_NONBLOCK) as free:
                if free:
                    replace_file(store / name, replica.content)
                    mended.append(name)
    return mended


def mend_replicas(store: Path, manifest: StoreManifest) -> list[str]:
    """Write what is damaged of the replicas again, and say what; those that were never written come too."""
    mended = damaged_replicas(store, manifest)
    (store / REPLICAS).mkdir(exist_ok=True)
    _copy_codec(store, manifest)
    for name, content in _expected(store, manifest):
        if name in mended or (name == replica_name(manifest.generation) and not (store / name).exists()):
            replace_file(store / name, content)
    return mended


def damaged_replicas(store: Path, manifest: StoreManifest) -> list[str]:
    """Paths of the replicas that are there and are not what they were written as; an earlier version wrote none."""
    entry, damaged = manifest.codec_arrays, []
    if entry is not None and (store / CODEC_REPLICA).exists() and not _is_file_of(store / CODEC_REPLICA, entry):
        damaged.append(CODEC_REPLICA)
    for name, content in _expected(store, manifest):
        if is_there(store / name) and _content(store / name, len(content)) != content:
            damaged.append(name)
    return damaged


def _expected(store: Path, manifest: StoreManifest) -> Iterator[tuple[str, bytes]]:
    """Each replica's path and content, of the generations whose manifests can be read."""
    names = {MANIFEST: manifest.generation}
    names |= {older_manifest_name(number): number for number in older_generations(store, manifest.generation)}
    for name, generation in names.items():
        with suppress(StoreError):
            read_store_manifest(store, name)
            if (content := _content(store / name, MAX_JSON_BYTES)) is not None:
                yield replica_name(generation), replica_content(content)


def _content(path: Path, limit_bytes: int) -> bytes | None:
    """What a file holds; None where it cannot be read, or holds more."""
    try:
        return read_file(path, limit_bytes)
    except OSError:
        return None


def _copy_codec(store: Path, manifest: StoreManifest) -> None:
    """Damaged arrays are not copied: the replica may be what mends them."""
    entry = manifest.codec_arrays
    if entry is not None and not _is_file_of(store / CODEC_REPLICA, entry) and _is_file_of(store / entry.path, entry):
        replace_file(store / CODEC_REPLICA, (store / entry.path).read_bytes())


def _is_file_of(path: Path, entry: FileEntry) -> bool:
    return path.is_file() and path.stat().st_size == entry.bytes and file_digest(path) == entry.sha256


def _is_readable(store: Path, name: str = MANIFEST) -> bool:
    try:
        read_store_manifest(store, name)
    except StoreError:
        return False
    return True
