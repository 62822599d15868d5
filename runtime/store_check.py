"""What is looked at before a store is opened: that it fits the bundle, and that its files are the manifest's.

A store's files are never written once they are there, so that a file of which nothing changed need not be read again.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from glimmer_export.runtime.bundle import Bundle, verify_file
from glimmer_export.runtime.contract import MANIFEST, FileEntry, StoreError, StoreManifest, inside
from glimmer_export.runtime.contract.dense_layout import DENSE
from glimmer_export.runtime.contract.store_mending import saying_what_mends

__all__ = ["Mark", "Marks", "check_store_fits", "marks_of", "verify_store"]

Mark = tuple[int, int, int, int]
"""Device, inode, bytes and nanoseconds of the last change."""
Marks = Mapping[FileEntry | str, Mark | None]
"""By a manifest's entry, and by the path of a manifest; None of what is absent."""


def marks_of(directory: Path, manifest: StoreManifest) -> Marks:
    """Marks of all that a manifest names, of itself and of the vectors' own manifest.

    Raises StoreError for a name that leads out of the store.
    """
    paths: dict[FileEntry | str, Path] = {
        entry: inside(directory, entry.path, error=StoreError, subject=f"store {directory}")
        for entry in manifest.files()
    }
    paths |= {name: directory / name for name in (MANIFEST, f"{DENSE}/{MANIFEST}")}
    return {entry: _mark(path) for entry, path in paths.items()}


def verify_store(directory: Path, manifest: StoreManifest, marks: Marks, known: Marks, *, verify: bool) -> None:
    """Raise StoreError where a file is absent, of another size, or of another digest where it is to `verify` that.

    What has the mark that it has among `known` was verified before.
    """
    for entry in manifest.files():
        verified = known.get(entry) is not None and known.get(entry) == marks[entry]
        with saying_what_mends(directory, manifest, entry.path):
            verify_file(
                directory, entry, error=StoreError, subject=f"store {directory}", fix="",
                digest=verify and not verified,
            )


def check_store_fits(directory: Path, manifest: StoreManifest, bundle: Bundle) -> None:
    """Raise StoreError where the store is not one that this bundle's checkpoint writes, whatever its precision."""
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
