"""The int8 codec: one code a value, a scale a token, and a fixed scale a channel that evens the channels out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from glimmer_export.runtime.codecs.contract import (
    CODE_ZERO,
    Array,
    CodecFormat,
    CodecLayout,
    CodecTensor,
    scaled_by_token,
    token_scale,
)

__all__ = ["CODECS", "INT8_LIMIT", "Int8Codec"]

INT8_LIMIT = 127


def _layout(d_model: int) -> CodecLayout:
    codes, scale = CodecTensor("memory", "uint8", (d_model,)), CodecTensor("memory_scale", "float32", ())
    channel_scale = CodecTensor("memory_channel_scale", "float32", (d_model,))
    return CodecLayout("int8", (codes, scale), arrays=(channel_scale,))


@dataclass(frozen=True)
class Int8Codec:
    """`memory = ((codes - 128) * channel_scale) * token_scale`.

    The token scale is the least at which no value is clipped.
    """

    layout: CodecLayout
    arrays: Mapping[str, Array]

    def encode(self, memory: Array) -> dict[str, Array]:
        """As `Codec.encode`: no value is further from what is decoded than half a step of its channel and token."""
        with np.errstate(over="ignore"):  # becomes the error of an infinite peak
            evened = memory / self.arrays["memory_channel_scale"]
        scale = token_scale(np.abs(evened).max(-1) / np.float32(INT8_LIMIT))
        codes = (np.rint(evened / scale[:, None]).clip(-INT8_LIMIT, INT8_LIMIT) + CODE_ZERO).astype(np.uint8)
        return {"memory": codes, "memory_scale": scale}

    def decode(self, tensors: Mapping[str, Array]) -> Array:
        """As `Codec.decode`."""
        values = (tensors["memory"].astype(np.float32) - CODE_ZERO) * self.arrays["memory_channel_scale"]
        return scaled_by_token(values, tensors["memory_scale"])


CODECS = (CodecFormat("int8", _layout, Int8Codec),)
