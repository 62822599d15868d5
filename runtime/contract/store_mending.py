"""How a damaged file of a store is made again: what every error that finds it damaged says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from glimmer_export.runtime.contract.digest import file_digest
from glimmer_export.runtime.contract.errors import StoreError
from glimmer_export.runtime.contract.files import READABLE
from glimmer_export.runtime.contract.manifest import FileEntry
from glimmer_export.runtime.contract.store_layout import CODEC_ARRAYS, StoreManifest
from glimmer_export.runtime.contract.store_replica import copied_files, copy_name

__all__ = ["copy_is_sound", "made_again", "mending", "saying_what_mends"]

COPY = "copy the store again"
BACK = "go back with `glimmer-export memory repair {store} --rollback`, copy the store again, or build it again"


def made_again(store: Path, manifest: StoreManifest, path: str) -> str | None:
    """What makes the file of this path again, alone; None if nothing does."""
    repair = f"glimmer-export memory repair {store}"
    if path.startswith("shards/"):
        return f"encode it again with `{repair} --bundle BUNDLE`"
    if any(path == file.path and copy_is_sound(store, file) for file in copied_files(manifest)):
        return f"restore it with `{repair}`"
    if any(path == file.path for segment in manifest.segments for file in segment.files):
        return f"write it again with `{repair}`"
    if manifest.generation == 0 and any(path == part.file.path for part in manifest.texts):
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


def copy_is_sound(store: Path, entry: FileEntry) -> bool:
    """Whether the second copy of a file is there and is what the manifest says of the file."""
    copy = store / copy_name(entry.path)
    with suppress(OSError):
        return copy.is_file() and copy.stat().st_size == entry.bytes and file_digest(copy) == entry.sha256
    return False
