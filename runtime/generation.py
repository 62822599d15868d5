"""One generation of a store: its manifest held, its files those of the manifest, fit for a bundle; what is deleted.

While its manifest is held, nothing that it names is removed. A store's files are never written once they are there, so
that a file of which nothing changed need not be read again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.array_files import fault_of_rising, read_arrays
from glimmer_export.runtime.bundle import Bundle, verify_file
from glimmer_export.runtime.contract import (
    MANIFEST,
    FileEntry,
    ShardEntry,
    StoreError,
    StoreManifest,
    TombstonesEntry,
    inside,
    read_limited,
    read_store_manifest,
)
from glimmer_export.runtime.contract.dense_layout import DENSE
from glimmer_export.runtime.contract.files import open_descriptor
from glimmer_export.runtime.contract.store_mending import mending, saying_what_mends

__all__ = [
    "TOMBSTONES",
    "Marks",
    "check_in_place",
    "check_store_fits",
    "held_manifest",
    "hold_manifest",
    "marks_of",
    "read_tombstones",
    "read_tombstones_file",
    "verify_store",
]

DIGESTED_AT_ONCE = 4
"""Files whose digests are computed at one time."""
ATTEMPTS = 100
"""A file system if no file is twice the same one must not stop a reader for ever."""
Mark = tuple[int, int, int, int]
"""Device, inode, bytes and nanoseconds of the last change."""
Marks = Mapping[FileEntry | str, Mark | None]
"""By a manifest's entry, and by the path of a manifest; None of what is absent."""
TOMBSTONES = "numbers"
"""The name of the file's one tensor."""
HEADER_BYTES = 1 << 12
"""More than the header of one tensor takes."""


def hold_manifest(directory: Path) -> tuple[StoreManifest, int]:
    """The manifest of a store, and a descriptor whose closing lets it go; nothing is written, as on read-only media.

    A change of the store puts another file in the manifest's place, and this one stays locked if it is kept. On a
    file system without locks nothing is held. Raises StoreError as `read_store_manifest`.
    """
    path = directory / MANIFEST
    attempts = 0
    while True:
        attempts += 1
        try:
            held = open_descriptor(path)
        except OSError:
            read_store_manifest(directory)  # says what is wrong
            if attempts >= ATTEMPTS:
                raise
            continue
        try:
            with suppress(OSError):
                fcntl.flock(held, fcntl.LOCK_SH)
            manifest = read_store_manifest(directory)
            if _is_file(held, path) or attempts >= ATTEMPTS:
                return manifest, held
        except BaseException:
            os.close(held)
            raise
        os.close(held)  # replaced before the lock was ours, and perhaps removed


def check_in_place(directory: Path, opened: int) -> None:
    """Raise StoreError if `directory` is no longer the one of the descriptor `opened`.

    Another store may have been put in its place, whose files have the same names.
    """
    with suppress(OSError):
        if os.path.samestat(os.fstat(opened), directory.stat()):
            return
    raise StoreError(
        f"store {directory}", expected="the store that was opened", found="another in its place, or none",
        fix="open it again",
    )


@contextmanager
def held_manifest(directory: Path) -> Iterator[StoreManifest]:
    """The manifest of a store, held until the end of the block; raises as `hold_manifest`."""
    manifest, held = hold_manifest(directory)
    try:
        yield manifest
    finally:
        os.close(held)


def _is_file(descriptor: int, path: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def marks_of(directory: Path, manifest: StoreManifest, shards: Sequence[ShardEntry]) -> Marks:
    """Marks of all that a manifest and its lists of `shards` name, of itself and of the vectors' own manifest.

    Raises StoreError for a name that leads out of the store.
    """
    paths: dict[FileEntry | str, Path] = {
        entry: inside(directory, entry.path, error=StoreError, subject=f"store {directory}")
        for entry in (*manifest.files(), *(shard.file for shard in shards))
    }
    paths |= {name: directory / name for name in (MANIFEST, f"{DENSE}/{MANIFEST}")}
    return {entry: _mark(path) for entry, path in paths.items()}


def verify_store(
    directory: Path, manifest: StoreManifest, shards: Sequence[ShardEntry], marks: Marks, known: Marks, *, verify: bool
) -> None:
    """Raise StoreError if a file is absent, of another size, or of another digest if it is to `verify` that.

    Of what is checked by the passage as it is read, shards and texts, the digest is not looked at, and of vectors
    nothing: who searches by words needs none. What has the mark that it has among `known` was verified before.
    """
    vector_files, checked_when_read = set(manifest.vector_files()), {shard.file for shard in shards}
    if manifest.index.engine != "fts5":  # whose index lies in the same file
        checked_when_read.update(part.file for part in manifest.texts if part.checksums)
    to_digest: list[FileEntry] = []
    for entry, mark in marks.items():
        if isinstance(entry, str) or entry in vector_files:
            continue
        verified = known.get(entry) is not None and known.get(entry) == mark
        if verify and not verified and entry not in checked_when_read:
            to_digest.append(entry)
        elif mark is None or entry.bytes != mark[2]:
            _verify(directory, manifest, entry, digest=False)
    if to_digest:
        with ThreadPoolExecutor(DIGESTED_AT_ONCE) as threads:
            list(threads.map(lambda entry: _verify(directory, manifest, entry), to_digest))


def _verify(directory: Path, manifest: StoreManifest, entry: FileEntry, *, digest: bool = True) -> None:
    with saying_what_mends(directory, manifest, entry.path):
        verify_file(directory, entry, error=StoreError, subject=f"store {directory}", fix="", digest=digest)


def check_store_fits(directory: Path, manifest: StoreManifest, bundle: Bundle) -> None:
    """Raise StoreError if the store is not one that this bundle's checkpoint writes, whatever its precision."""
    wanted = bundle.manifest
    for what, expected, found in (
        ("the checkpoint's memory encoder", wanted.memory_digest, manifest.memory_digest),
        ("the tokenizer", wanted.tokenizer_digest, manifest.tokenizer_digest),
        ("d_model", wanted.model.d_model, manifest.d_model),
        ("passage_length", wanted.model.passage_length, manifest.passage_length),
    ):
        if expected != found:
            raise StoreError(
                f"store {directory}", expected=f"a store of {bundle}, {what} {expected}", found=f"{found}",
                fix="open it with a bundle of its own checkpoint, or build one for this bundle: "
                "`glimmer-export memory build`",
            )
    if manifest.codec not in wanted.codecs and (manifest.codec is not None or wanted.codecs):
        served = ", ".join(wanted.codecs) or "none"
        raise StoreError(
            f"store {directory}", expected=f"a store of {bundle}, in a codec that it decodes, {served}",
            found=str(manifest.codec),
            fix=f"export the bundle again with `--codecs {manifest.codec}`, or re-encode the store with "
            "`glimmer-export memory convert`",
        )


def _mark(path: Path) -> Mark | None:
    try:
        found = path.stat()
    except (OSError, ValueError):  # verifying it says why
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def read_tombstones(directory: Path, manifest: StoreManifest) -> NDArray[np.int64]:
    """Numbers of all deleted passages, (num_tombstones,) int64, rising; raises StoreError as `read_tombstones_file`."""
    parts = [np.array(manifest.tombstones, np.int64)]
    parts += [read_tombstones_file(directory, manifest, part) for part in manifest.tombstone_files]
    numbers = np.sort(np.concatenate(parts))
    if (numbers[1:] == numbers[:-1]).any():
        raise StoreError(
            f"store {directory}", expected="tombstones of a passage each",
            found=f"two of {numbers[1:][numbers[1:] == numbers[:-1]][0]}", fix="see `glimmer-export memory verify`",
        )
    return numbers


def read_tombstones_file(directory: Path, manifest: StoreManifest, part: TombstonesEntry) -> NDArray[np.int64]:
    """Numbers (count,) int64, rising; raises StoreError if the file holds anything else."""
    path = directory / part.file.path
    fix = mending(directory, manifest, part.file.path)

    def refused(reason: str) -> StoreError:
        return StoreError(str(path), expected="a safetensors file", found=reason, fix=fix)

    limit = part.count * np.dtype(np.int64).itemsize + HEADER_BYTES
    content = read_limited(path, limit_bytes=limit, error=StoreError, subject=str(path), fix=fix)
    numbers = read_arrays(content, refused).get(TOMBSTONES)
    if numbers is None:
        fault: str | None = f"no array {TOMBSTONES}"
    elif not numbers.size or numbers.dtype != np.int64 or numbers.shape != (part.count,):
        fault = f"{numbers.dtype} {list(numbers.shape)}"
    else:
        fault = fault_of_rising(numbers, least=0, most=manifest.num_numbers - 1)
    if numbers is None or fault is not None:
        raise StoreError(
            str(path), expected=f"{part.count} numbers that rise, below {manifest.num_numbers}",
            found=str(fault), fix=fix,
        )
    return numbers
