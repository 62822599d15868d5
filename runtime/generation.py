"""The generation of a store that is open: while its manifest is held, nothing that it names is removed."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from glimmer_export.runtime.contract import MANIFEST, StoreError, StoreManifest, read_store_manifest
from glimmer_export.runtime.contract.files import open_descriptor

__all__ = ["check_in_place", "held_manifest", "hold_manifest"]

ATTEMPTS = 100
"""A file system where no file is twice the same one must not stop a reader for ever."""


def hold_manifest(directory: Path) -> tuple[StoreManifest, int]:
    """The manifest of a store, and a descriptor whose closing lets it go; nothing is written, as on read-only media.

    A change of the store puts another file in the manifest's place, and this one stays locked where it is kept. On a
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
    """Raise StoreError where `directory` is no longer the one of the descriptor `opened`.

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
