"""The generations that lie in a store: which files each names, and the removal of what nobody needs any more."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from glimmer_export.exporter.durable import sync_directory
from glimmer_export.exporter.file_lock import held_alone
from glimmer_export.exporter.whole_file import UNFINISHED
from glimmer_export.runtime.contract import MANIFEST, StoreError, StoreManifest, is_volume_part, read_store_manifest
from glimmer_export.runtime.contract.dense_layout import DENSE
from glimmer_export.runtime.contract.store_layout import OLDER_MANIFESTS, older_manifest_name
from glimmer_export.runtime.contract.store_replica import CODEC_REPLICA, REPLICAS, replica_name

__all__ = ["next_generation", "next_shard_index", "older_generations", "remove_older", "sweep", "unnamed_files"]

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
