"""The codec of a store, on the arrays that its file holds; anybody may have written that."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glimmer_export.runtime.array_files import read_arrays
from glimmer_export.runtime.codecs import CODECS, Array, Codec, CodecArrayError, CodecTensor, codec_layout
from glimmer_export.runtime.contract import CODEC_ARRAYS, FileEntry, StoreError, StoreManifest, read_limited
from glimmer_export.runtime.contract.store_mending import saying_what_mends

__all__ = ["open_codec", "open_store_codec", "read_codec"]

HEADER_BYTES = 1 << 16
FIX = "copy the store again, or build it again with `glimmer-export memory build`"


def open_store_codec(directory: Path, manifest: StoreManifest) -> Codec | None:
    """The codec of a store whose files were verified; None if it holds no memory. Raises as `read_codec`."""
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


def open_codec(name: str, d_model: int, arrays: Mapping[str, Array], *, subject: str) -> Codec:
    """The codec `name` at a width, on its arrays.

    Raises StoreError about `subject` for an array that is missing, not one of the codec's, of another dtype or shape,
    or that holds what no codec is fitted to; ValueError for a codec that is not registered or does not fit the width.
    """
    layout = codec_layout(name, d_model)
    expected = sorted(array.name for array in layout.arrays)
    if sorted(arrays) != expected:
        raise StoreError(
            subject, expected=f"the arrays {', '.join(expected) or 'none'}",
            found=", ".join(sorted(arrays)) or "none", fix=FIX,
        )
    checked = {array.name: _checked(array, arrays[array.name], subject) for array in layout.arrays}
    try:
        return CODECS[name].open(layout, checked)
    except CodecArrayError as error:
        raise StoreError(
            f"{subject}, array {error.array}", expected=error.expected, found=error.found, fix=FIX
        ) from None


def _checked(expected: CodecTensor, array: Array, subject: str) -> Array:
    subject = f"{subject}, array {expected.name}"
    if array.dtype != expected.dtype or array.shape != expected.shape:
        raise StoreError(
            subject, expected=f"{expected.dtype} {list(expected.shape)}", found=f"{array.dtype} {list(array.shape)}",
            fix=FIX,
        )
    if not np.isfinite(array).all():
        raise StoreError(subject, expected="finite values", found="infinity or NaN", fix=FIX)
    if expected.is_scale and not (array > 0).all():
        raise StoreError(subject, expected="scales above 0", found=f"{array.min()}", fix=FIX)
    return np.ascontiguousarray(array)


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
