"""The generations that lie in a store: which files each names, and the removal of what nobody needs any more.

Each has a manifest with a replica, and one mends the other if a byte has flipped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from glimmer_export.exporter.files.links import require_no_link_below
from glimmer_export.exporter.files.publish import recover
from glimmer_export.exporter.files.whole_file import UNFINISHED, held_alone, replace_file, sync_directory, write_errors
from glimmer_export.exporter.memory.journal import DROPPED, JOURNAL, dropped_lists, free_dropped
from glimmer_export.exporter.memory.work import work_directory
from glimmer_export.runtime.contract import (
    MANIFEST,
    STORE_SCHEMA_VERSION,
    FileEntry,
    StoreError,
    StoreManifest,
    file_digest,
    is_volume_part,
    store_files,
)
from glimmer_export.runtime.contract.dense_layout import DENSE
from glimmer_export.runtime.contract.files import is_there, read_file
from glimmer_export.runtime.contract.records import MAX_JSON_BYTES, record_to_lines
from glimmer_export.runtime.contract.store_layout import (
    INDEX_FOLDER,
    NAMED_PATHS,
    OLDER_MANIFESTS,
    older_manifest_name,
)
from glimmer_export.runtime.contract.store_manifest import manifest_replica, read_store_manifest
from glimmer_export.runtime.contract.store_mending import copy_is_sound
from glimmer_export.runtime.contract.store_replica import (
    REPLICAS,
    copied_files,
    copy_name,
    replica_content,
    replica_name,
)
from glimmer_export.runtime.contract.vector_layout import ENCODERS, VECTORS, is_vectors_path

__all__ = [
    "damaged_replicas", "free_older", "mend_copies", "mend_manifest", "mend_older", "mend_replicas", "next_generation",
    "older_generations", "put_manifest", "sweep", "unnamed_files",
]  # fmt: skip

OURS = re.compile(
    rf"{NAMED_PATHS}|{INDEX_FOLDER}/.+|{REPLICAS}/(\d{{5,}}\.manifest|[\w-]+\.(json|safetensors))"
    rf"|{DROPPED}/\d{{5,}}\.json|{JOURNAL}|\.manifest\.json\.tmp|([\w-]+/)*{UNFINISHED.pattern}"
)
"""Files that a change of the store may have left; nothing else is ever removed."""
OLDER = re.compile(r"(\d{5,})\.json")
GENERATION = re.compile(
    r"(?:manifests|replicas|tombstones|dropped|encoders)/(\d{5,})(?:\.\w+)?|\./(?:passages\.|index-)(\d{5,})(?:\.sqlite)?"
    r"|(?:shards|shard-lists|texts|segments|vectors)/(\d{5,})-\d{5,}(?:-\w+)?(?:\.\w+)?"
)


def older_generations(store: Path, current: int) -> list[int]:
    """The generations before `current` whose manifests are kept, in their order."""
    if not (store / OLDER_MANIFESTS).is_dir():
        return []
    found = (OLDER.fullmatch(path.name) for path in (store / OLDER_MANIFESTS).iterdir())
    # The current one is linked there too, by a change that was killed before it was published.
    return sorted(number for match in found if match and (number := int(match[1])) != current)


def unnamed_files(store: Path, manifest: StoreManifest) -> list[str]:
    """Paths below the store of files that no generation names, in their order.

    Of vectors beside a manifest (dense_layout.py) nothing is said as long as a generation is there that may have them.

    Raises StoreError for an older manifest, or a list of shards, that cannot be read.
    """
    named = {MANIFEST, older_manifest_name(manifest.generation), replica_name(manifest.generation)}
    beside = manifest.vectors is None
    named.update(_named(store, manifest))
    for generation in older_generations(store, manifest.generation):
        name = older_manifest_name(generation)
        try:
            older = read_store_manifest(store, name)
            named.update((name, replica_name(generation), *_named(store, older)))
            beside = beside or older.vectors is None
        except StoreError:
            if (store / name).exists():  # and was not removed just now
                raise
    named.update(path.relative_to(store).as_posix() for path, _ in dropped_lists(store))
    below = (path.relative_to(store) for path in store.rglob("*") if not path.is_dir())
    found = {path.as_posix() for path in below if not is_volume_part(path)} - named
    return sorted(name for name in found if not (beside and name.startswith(f"{DENSE}/")) or OURS.fullmatch(name))


def _named(store: Path, manifest: StoreManifest) -> Iterator[str]:
    """Paths of the files that a manifest and its lists name, and of their copies."""
    yield from (file.path for file in store_files(store, manifest))
    yield from (copy_name(file.path) for file in copied_files(manifest))


def sweep(store: Path, manifest: StoreManifest) -> int:
    """Remove every file of ours that no generation names, for the writer of the store; returns the bytes freed."""
    freed = 0
    with suppress(StoreError):  # a generation whose files cannot be told may still be open
        # Replicas first: none stands for a generation whose files are gone.
        for name in sorted(unnamed_files(store, manifest), key=lambda name: not name.startswith(REPLICAS)):
            if OURS.fullmatch(name) or is_vectors_path(name):
                freed += (store / name).lstat().st_size
                (store / name).unlink()
                with suppress(OSError):  # not empty: an index is a folder of files
                    (store / name).parent.rmdir()
    return freed


def free_older(store: Path, current: int, *, kept: int) -> tuple[list[int], list[int], int]:
    """Remove the older generations that nobody holds, but for the newest `kept`, and the files that they alone name.

    Which files these are, the changes that dropped them have noted: no older manifest is read. Returns the generations
    removed, those that stay, and the bytes freed.
    """
    removed: list[int] = []
    staying: list[int] = []
    older = older_generations(store, current)
    for place, generation in enumerate(older):
        path, free = store / older_manifest_name(generation), False
        if place < len(older) - kept:
            with held_alone(path, os.O_RDWR | os.O_NOFOLLOW) as free:
                if free:
                    (store / replica_name(generation)).unlink(missing_ok=True)
                    path.unlink()  # before what it names: whoever comes to hold it now sees that it is gone
        (removed if free else staying).append(generation)
    if removed:
        sync_directory(store / OLDER_MANIFESTS)
    freed = free_dropped(store, staying)
    with suppress(OSError):  # absent, or not empty
        (store / OLDER_MANIFESTS).rmdir()
    return removed, staying, freed


def next_generation(store: Path) -> int:
    """A number above that of every generation of which there is a file."""
    folders = (
        ".", OLDER_MANIFESTS, REPLICAS, "shards", "shard-lists", "texts", "segments", "tombstones", VECTORS, ENCODERS,
        DROPPED,
    )
    names = (f"{folder}/{path.name}" for folder in folders for path in (store / folder).glob("*"))
    found = (GENERATION.fullmatch(name) for name in names)
    return max((int(next(filter(None, match.groups()))) for match in found if match), default=0) + 1


def put_manifest(store: Path, manifest: StoreManifest) -> StoreManifest:
    """Make `manifest` the store's, its replica first: whatever stops this, what is in its place has one."""
    manifest = replace(manifest, schema_version=STORE_SCHEMA_VERSION)
    content = record_to_lines(manifest).encode()
    (store / REPLICAS).mkdir(exist_ok=True)
    _copy_files(store, manifest)
    replace_file(store / replica_name(manifest.generation), replica_content(content))
    replace_file(store / MANIFEST, content)
    return manifest


def mend_manifest(store: Path) -> bool:
    """Put the replica in the place of a damaged manifest; whether there was one.

    Raises StoreError if no replica can mend it, OutputError if another process changes the store.
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


def mend_copies(store: Path, manifest: StoreManifest) -> list[str]:
    """Put second copies in the places of damaged files, and say of which; the others cannot be mended so."""
    mended = []
    for file in copied_files(manifest):
        if not _is_file_of(store / file.path, file) and copy_is_sound(store, file):
            (store / file.path).parent.mkdir(exist_ok=True)
            replace_file(store / file.path, (store / copy_name(file.path)).read_bytes())
            mended.append(file.path)
    return mended


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
    _copy_files(store, manifest, mended)
    for name, content in _expected(store, manifest):
        if name in mended or (name == replica_name(manifest.generation) and not (store / name).exists()):
            replace_file(store / name, content)
    return mended


def damaged_replicas(store: Path, manifest: StoreManifest) -> list[str]:
    """Paths of the replicas that are there and are not what they were written as; an earlier version wrote none."""
    copies = ((copy_name(file.path), file) for file in copied_files(manifest))
    damaged = [name for name, file in copies if is_there(store / name) and not _is_file_of(store / name, file)]
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
    """What a file holds; None if it cannot be read, or holds more."""
    try:
        return read_file(path, limit_bytes)
    except OSError:
        return None


def _copy_files(store: Path, manifest: StoreManifest, damaged: Collection[str] = ()) -> None:
    """Copy what has no copy, or a `damaged` one. A damaged file is not copied: its copy may be what mends it."""
    for file in copied_files(manifest):
        place, copy = store / file.path, store / copy_name(file.path)
        has_copy = is_there(copy) and copy.stat().st_size == file.bytes and copy_name(file.path) not in damaged
        if not has_copy and _is_file_of(place, file):
            replace_file(copy, place.read_bytes())


def _is_file_of(path: Path, entry: FileEntry) -> bool:
    return path.is_file() and path.stat().st_size == entry.bytes and file_digest(path) == entry.sha256


def _is_readable(store: Path, name: str = MANIFEST) -> bool:
    try:
        read_store_manifest(store, name)
    except StoreError:
        return False
    return True
