"""How a damaged file of a store is made again: what every error that finds it damaged says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from glimmer_export.runtime.contract.digest import file_digest
from glimmer_export.runtime.contract.errors import StoreError
from glimmer_export.runtime.contract.files import READABLE
from glimmer_export.runtime.contract.store_layout import CODEC_ARRAYS, StoreManifest
from glimmer_export.runtime.contract.store_replica import CODEC_REPLICA

__all__ = ["codec_replica_is_sound", "made_again", "mending", "saying_what_mends"]

COPY = "copy the store again"
BACK = "go back with `glimmer-export memory repair {store} --rollback`, copy the store again, or build it again"


def made_again(store: Path, manifest: StoreManifest, path: str) -> str | None:
    """What makes the file of this path again, alone; None if nothing does."""
    repair = f"glimmer-export memory repair {store}"
    written = [file.path for file in (manifest.tombstones, *manifest.index.files) if file]
    if path in [shard.file.path for shard in manifest.shards]:
        return f"encode it again with `{repair} --bundle BUNDLE`"
    if path == CODEC_ARRAYS and codec_replica_is_sound(store, manifest):
        return f"restore it with `{repair}`"
    if path in written:
        return f"write it again with `{repair}`"
    if path == manifest.texts.path and manifest.generation == 0:
        return f"write it again with `{repair} --corpus CORPUS`, of SHA-256 {manifest.corpus_sha256}"
    return None


def mending(store: Path, manifest: StoreManifest, path: str) -> str:
    """What to do about the damaged file of this path, for whoever only reads the store."""
    again = made_again(store, manifest, path)
    if again is not None:
        return f"{again}, or {COPY}"
    if path == CODEC_ARRAYS:  # which every generation names
        return f"{COPY}, or build it again with `glimmer-export memory build`"
    return BACK.format(store=store)


@contextmanager
def saying_what_mends(store: Path, manifest: StoreManifest, path: str) -> Iterator[None]:
    """Around the reading of one file of a store: its StoreError says what mends the file, unless it may not be read."""
    try:
        yield
    except StoreError as damage:
        if damage.fix == READABLE:
            raise
        raise StoreError(
            damage.subject, expected=damage.expected, found=damage.found, fix=mending(store, manifest, path)
        ) from None


def codec_replica_is_sound(store: Path, manifest: StoreManifest) -> bool:
    """Whether a replica of the codec's arrays is there and is what the manifest says of them."""
    entry, replica = manifest.codec_arrays, store / CODEC_REPLICA
    with suppress(OSError):
        return (
            entry is not None and replica.is_file() and replica.stat().st_size == entry.bytes
            and file_digest(replica) == entry.sha256
        )
    return False
