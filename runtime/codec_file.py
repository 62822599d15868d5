"""The codec of a store, on the arrays that its file holds."""

from __future__ import annotations

from pathlib import Path

from glimmer_export.runtime.array_files import read_arrays
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.codecs import Codec, open_codec
from glimmer_export.runtime.contract import (
    CODEC_ARRAYS,
    FileEntry,
    StoreError,
    StoreManifest,
    codec_layout,
    read_limited,
)
from glimmer_export.runtime.contract.store_mending import saying_what_mends

__all__ = ["open_store_codec", "read_codec"]

HEADER_BYTES = 1 << 16
FIX = "copy the store again, or build it again with `glimmer-export memory build`"


def open_store_codec(directory: Path, manifest: StoreManifest) -> Codec | None:
    """The codec of a store whose files were verified; None where it holds no memory. Raises as `read_codec`."""
    if manifest.codec is None:
        return None
    with saying_what_mends(directory, manifest, CODEC_ARRAYS):
        return read_codec(directory, manifest.codec_arrays, manifest.codec, manifest.d_model)


def read_codec(directory: Path, entry: FileEntry | None, name: str, d_model: int) -> Codec:
    """A codec on the arrays of a file below `directory`, None for a codec without any.

    Raises StoreError for a codec that does not fit the width, and for arrays that are absent, damaged, of another size,
    or not such as a codec is fitted to.
    """
    subject = f"store {directory}"
    try:
        layout = codec_layout(name, d_model)
    except ValueError as reason:
        raise StoreError(subject, expected="a codec that it can have", found=str(reason), fix=FIX) from None
    num_bytes = sum(array.num_bytes for array in layout.arrays)
    if (entry is not None) != bool(layout.arrays) or (entry and not 0 <= entry.bytes - num_bytes <= HEADER_BYTES):
        raise StoreError(
            subject, expected=f"{num_bytes} bytes of arrays for the codec {name}",
            found=f"{entry.bytes} bytes" if entry else "no file", fix=FIX,
        )
    return open_codec(name, d_model, _arrays(directory, entry), subject=subject)


def _arrays(directory: Path, entry: FileEntry | None) -> dict[str, Array]:
    if entry is None:
        return {}
    subject = f"store {directory}, {entry.path}"

    def refused(reason: str) -> StoreError:
        return StoreError(subject, expected="a safetensors file", found=reason, fix=FIX)

    content = read_limited(
        directory / entry.path, limit_bytes=entry.bytes, error=StoreError, subject=subject, fix=FIX
    )  # `entry.bytes` was compared with what the codec has
    return read_arrays(content, refused)
