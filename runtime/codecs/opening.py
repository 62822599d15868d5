"""Open a codec on its arrays, which come from a file that anybody may have written."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from glimmer_export.runtime.codecs.contract import Array, Codec
from glimmer_export.runtime.codecs.fp16 import Fp16Codec
from glimmer_export.runtime.codecs.int4 import Int4Codec
from glimmer_export.runtime.codecs.int8 import Int8Codec
from glimmer_export.runtime.codecs.product import ProductCodec
from glimmer_export.runtime.contract import StoreError
from glimmer_export.runtime.contract.codec_layout import GROUP_CHANNELS, CodecLayout, CodecTensor, codec_layout

__all__ = ["open_codec"]

FIX = "copy the store again, or build it again with `glimmer-export memory build`"
CLASSES: dict[str, Callable[[CodecLayout, Mapping[str, Array]], Codec]] = {
    "fp16": Fp16Codec, "int8": Int8Codec, "int4": Int4Codec, "pq8x": ProductCodec, "pq16x": ProductCodec,
}


def open_codec(name: str, d_model: int, arrays: Mapping[str, Array], *, subject: str) -> Codec:
    """The codec `name` at a width, on its arrays.

    Raises StoreError about `subject` where an array is missing, not one of the codec's, of another dtype or shape, or
    holds what no codec is fitted to; ValueError for a name or a width that no codec has.
    """
    layout = codec_layout(name, d_model)
    expected = sorted(array.name for array in layout.arrays)
    if sorted(arrays) != expected:
        raise StoreError(
            subject, expected=f"the arrays {', '.join(expected) or 'none'}",
            found=", ".join(sorted(arrays)) or "none", fix=FIX,
        )
    checked = {array.name: _checked(array, arrays[array.name], layout, subject) for array in layout.arrays}
    return CLASSES[name](layout, checked)


def _checked(expected: CodecTensor, array: Array, layout: CodecLayout, subject: str) -> Array:
    subject = f"{subject}, array {expected.name}"
    if array.dtype != expected.dtype or array.shape != expected.shape:
        raise StoreError(
            subject, expected=f"{expected.dtype} {list(expected.shape)}", found=f"{array.dtype} {list(array.shape)}",
            fix=FIX,
        )
    if not np.isfinite(array).all():
        raise StoreError(subject, expected="finite values", found="infinity or NaN", fix=FIX)
    if expected.name in ("memory_channel_scale", "memory_scale") and not (array > 0).all():
        raise StoreError(subject, expected="scales above 0", found=f"{array.min()}", fix=FIX)
    if expected.name == "memory_channel_order":
        places = _num_places(layout)
        if array.min() < 0 or array.max() >= places or len(np.unique(array)) != len(array):
            found = f"{len(np.unique(array))} different ones, {array.min()} to {array.max()}"
            raise StoreError(
                subject, expected=f"{len(array)} different places below {places}", found=found, fix=FIX
            )
    return np.ascontiguousarray(array)


def _num_places(layout: CodecLayout) -> int:
    """Of the int4 codec: places of its groups and its outliers."""
    shapes = {tensor.name: tensor.shape for tensor in layout.per_token}
    return shapes["memory_group_scale"][0] * GROUP_CHANNELS + shapes["memory_outliers"][0]
