"""A second copy of a store's manifest, with its digest: a byte that has flipped in either is told, and mended.

    STORE/replicas/00003.manifest                  of the third generation: its SHA-256, a line, and the very bytes
    STORE/replicas/codec.safetensors               the bytes of STORE/codec.safetensors, whose digest the manifest has
    STORE/replicas/shard-lists-00003-00000.json    those of STORE/shard-lists/00003-00000.json, and so on: of what
    STORE/replicas/tombstones-00003.safetensors    nothing else makes again

The replica is written first, so that the manifest in its place always has one; an older generation keeps its own. A
store without replicas, as earlier versions made it, is read without them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.runtime.contract.files import is_there, read_file
from glimmer_export.runtime.contract.manifest import FileEntry
from glimmer_export.runtime.contract.records import MAX_JSON_BYTES
from glimmer_export.runtime.contract.store_layout import StoreManifest

__all__ = [
    "REPLICAS", "Replica", "copied_files", "copy_name", "newest_replica", "read_replica", "replica_content",
    "replica_name",
]  # fmt: skip

REPLICAS = "replicas"
NAME = re.compile(r"(\d{5,})\.manifest")
DIGEST_BYTES = 64
DIGEST = re.compile(rb"[0-9a-f]{64}")


@dataclass(frozen=True)
class Replica:
    """What a replica's file holds: the digest that it states, in hex, and the manifest's bytes."""

    generation: int
    stated: bytes
    content: bytes

    @property
    def is_sound(self) -> bool:
        """Whether its bytes are those of its digest."""
        return _digest(self.content) == self.stated

    @property
    def is_legible(self) -> bool:
        """Whether it says anything: one that is cut short, or cannot be read at all, does not cost the store."""
        return DIGEST.fullmatch(self.stated) is not None

    def vouches_for(self, manifest: bytes) -> bool:
        """Whether these are the bytes that were written: one damaged half of the replica does not stand against it."""
        return not self.is_legible or manifest == self.content or _digest(manifest) == self.stated


def replica_name(generation: int) -> str:
    """Path of a generation's replica below its store."""
    return f"{REPLICAS}/{generation:05d}.manifest"


def copy_name(path: str) -> str:
    """Path below its store of the second copy of the file at this one."""
    return f"{REPLICAS}/{path.replace('/', '-')}"


def copied_files(manifest: StoreManifest) -> list[FileEntry]:
    """The files of which there is a second copy, in a store that this version wrote."""
    codec = [manifest.codec_arrays] if manifest.codec_arrays else []
    lists = [part.file for part in manifest.shard_lists]
    return [*codec, *lists, *(part.file for part in manifest.tombstone_files)]


def replica_content(manifest: bytes) -> bytes:
    """What is written as the replica of a manifest."""
    return _digest(manifest) + b"\n" + manifest


def read_replica(store: Path, generation: int) -> Replica | None:
    """The replica of a generation, sound or not; None if there is none.

    A line that is missing or damaged makes it unsound. What cannot be read is as an empty file is.
    """
    path = store / replica_name(generation)
    if not is_there(path):
        return None
    try:
        content = read_file(path, MAX_JSON_BYTES + DIGEST_BYTES + 1)
    except OSError:
        content = b""
    return Replica(generation, content[:DIGEST_BYTES], content[DIGEST_BYTES + 1 :])


def newest_replica(store: Path) -> Replica | None:
    """The replica of the highest generation; None if there is none."""
    generations = sorted(_generations(store), reverse=True)
    return read_replica(store, generations[0]) if generations else None


def _generations(store: Path) -> Iterator[int]:
    try:
        names = [path.name for path in (store / REPLICAS).iterdir()]
    except OSError:  # none, as before there were any
        return
    for name in names:
        if match := NAME.fullmatch(name):
            yield int(match[1])


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
