"""The generations that lie in a store: which files each names, and the removal of what nobody needs any more.

Each has a manifest with a replica, and one mends the other if a byte has flipped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from glimmer_export.exporter.files.links import require_no_link_below
from glimmer_export.exporter.files.publish import recover
from glimmer_export.exporter.files.whole_file import UNFINISHED, held_alone, replace_file, sync_directory, write_errors
from glimmer_export.exporter.memory.work import work_directory
from glimmer_export.runtime.contract import (
    CODEC_ARRAYS,
    MANIFEST,
    FileEntry,
    StoreError,
    StoreManifest,
    file_digest,
    is_volume_part,
    record_to_json,
)
from glimmer_export.runtime.contract.dense_layout import DENSE
from glimmer_export.runtime.contract.files import is_there, read_file
from glimmer_export.runtime.contract.records import MAX_JSON_BYTES
from glimmer_export.runtime.contract.store_layout import OLDER_MANIFESTS, older_manifest_name
from glimmer_export.runtime.contract.store_manifest import manifest_replica, read_store_manifest
from glimmer_export.runtime.contract.store_mending import codec_replica_is_sound
from glimmer_export.runtime.contract.store_replica import CODEC_REPLICA, REPLICAS, replica_content, replica_name

__all__ = [
    "damaged_replicas", "mend_codec", "mend_manifest", "mend_older", "mend_replicas", "next_generation",
    "next_shard_index", "older_generations", "put_manifest", "remove_older", "sweep", "unnamed_files",
]  # fmt: skip

TOMBSTONES = "tombstones"
SHARD = re.compile(r"shards/(\d{5,})\.safetensors")
OURS = re.compile(
    rf"{SHARD.pattern}|{REPLICAS}/\d{{5,}}\.manifest|{TOMBSTONES}/\d{{5,}}\.safetensors|passages(\.\d{{5,}})?\.sqlite"
    rf"|index-\d{{5,}}/.+|\.manifest\.json\.tmp|({DENSE}/|{REPLICAS}/)?{UNFINISHED.pattern}"
)
"""Files that a change of the store may have left; nothing else is ever removed."""
OLDER = re.compile(r"(\d{5,})\.json")
GENERATION = re.compile(r"(?:passages\.)?(\d{5,})\.(?:sqlite|safetensors|json|manifest)")


def older_generations(store: Path, current: int) -> list[int]:
    """The generations before `current` whose manifests are kept, in their order."""
    if not (store / OLDER_MANIFESTS).is_dir():
        return []
    found = (OLDER.fullmatch(path.name) for path in (store / OLDER_MANIFESTS).iterdir())
    # The current one is linked there too, by a change that was killed before it was published.
    return sorted(number for match in found if match and (number := int(match[1])) != current)


def unnamed_files(store: Path, manifest: StoreManifest) -> list[str]:
    """Paths below the store of files that no generation names, in their order, less those of its vectors.

    Raises StoreError for an older manifest that cannot be read.
    """
    named = {MANIFEST, older_manifest_name(manifest.generation), replica_name(manifest.generation)}
    if manifest.codec_arrays is not None:
        named.add(CODEC_REPLICA)
    named.update(file.path for file in manifest.files())
    for generation in older_generations(store, manifest.generation):
        name = older_manifest_name(generation)
        try:
            files = read_store_manifest(store, name).files()
            named.update((name, replica_name(generation), *(file.path for file in files)))
        except StoreError:
            if (store / name).exists():  # and was not removed just now
                raise
    below = (path.relative_to(store) for path in store.rglob("*") if not path.is_dir())
    found = {path.as_posix() for path in below if not is_volume_part(path)} - named
    return sorted(name for name in found if not name.startswith(f"{DENSE}/") or OURS.fullmatch(name))


def sweep(store: Path, manifest: StoreManifest) -> int:
    """Remove what changes that did not get through have left, for the writer of the store; returns the bytes freed."""
    freed = 0
    with suppress(StoreError):  # a generation whose files cannot be told may still be open
        # Replicas first: none stands for a generation whose files are gone.
        for name in sorted(unnamed_files(store, manifest), key=lambda name: not name.startswith(REPLICAS)):
            if OURS.fullmatch(name):
                freed += (store / name).lstat().st_size
                (store / name).unlink()
                with suppress(OSError):  # not empty: an index is a folder of files
                    (store / name).parent.rmdir()
    return freed


def remove_older(store: Path, manifest: StoreManifest) -> tuple[list[int], list[int], int]:
    """Remove the older generations that nobody holds; returns those, the ones that stay, and the bytes freed."""
    removed: list[int] = []
    kept: list[int] = []
    for generation in older_generations(store, manifest.generation):
        path = store / older_manifest_name(generation)
        with held_alone(path, os.O_RDWR) as free:
            if free:
                path.unlink()  # first: whoever comes to hold it now sees that it is gone
        (removed if free else kept).append(generation)
    if removed:
        sync_directory(store / OLDER_MANIFESTS)  # before what they name goes
    freed = sweep(store, manifest)
    with suppress(OSError):  # absent, or not empty
        (store / OLDER_MANIFESTS).rmdir()
    return removed, kept, freed


def next_generation(store: Path) -> int:
    """A number above that of every generation of which there is a file."""
    folders = (".", TOMBSTONES, OLDER_MANIFESTS, REPLICAS)
    names = (path.name for folder in folders for path in (store / folder).glob("*"))
    found = (GENERATION.fullmatch(name) for name in names)
    return max((int(match[1]) for match in found if match), default=0) + 1


def next_shard_index(store: Path) -> int:
    """The lowest index above every shard file that is there, whichever generation it belongs to."""
    found = (SHARD.fullmatch(f"shards/{path.name}") for path in (store / "shards").glob("*"))
    return max((int(match[1]) for match in found if match), default=-1) + 1


def put_manifest(store: Path, manifest: StoreManifest) -> None:
    """Make `manifest` the store's, its replica first: whatever stops this, what is in its place has one."""
    content = record_to_json(manifest).encode()
    (store / REPLICAS).mkdir(exist_ok=True)
    _copy_codec(store, manifest)
    replace_file(store / replica_name(manifest.generation), replica_content(content))
    replace_file(store / MANIFEST, content)


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


def mend_codec(store: Path, manifest: StoreManifest) -> bool:
    """Put the replica in the place of damaged codec arrays; False if none can mend them."""
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
    """What a file holds; None if it cannot be read, or holds more."""
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
