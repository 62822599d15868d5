"""The fp16 codec: half precision, with a power-of-two scale for each passage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from glimmer_export.runtime.codecs.contract import Array, CodecFormat, CodecLayout, CodecTensor

__all__ = ["CODECS", "Fp16Codec", "decode_fp16", "encode_fp16"]

FP16_EXPONENT = 14
"""A passage's largest value is stored between 2**14 and 2**15: below FP16's limit, far above its subnormals."""


def _layout(d_model: int) -> CodecLayout:
    memory, scale = CodecTensor("memory", "float16", (d_model,)), CodecTensor("memory_scale", "float32", ())
    return CodecLayout("fp16", (memory,), per_passage=(scale,))


@dataclass(frozen=True)
class Fp16Codec:
    """Has no arrays."""

    layout: CodecLayout
    arrays: Mapping[str, Array]

    def encode(self, memory: Array) -> dict[str, Array]:
        """As `Codec.encode`: codes (tokens, d_model) float16, and one scale, of no dimension."""
        codes, scale = encode_fp16(memory)
        return {"memory": codes, "memory_scale": np.array(scale)}

    def decode(self, tensors: Mapping[str, Array]) -> Array:
        """As `Codec.decode`."""
        return decode_fp16(tensors["memory"], tensors["memory_scale"])


def encode_fp16(memory: Array) -> tuple[Array, np.float32]:
    """The fp16 codec: float32 (tokens, d_model) -> float16 of the same shape and a power-of-two scale.

    `memory = codes * scale`. The scale is the passage's own, so states of any magnitude keep FP16's full precision
    and none overflows. Raises FloatingPointError where the memory is not finite.
    """
    peak = float(np.abs(memory).max())
    if not np.isfinite(peak):
        raise FloatingPointError("memory is not finite")
    exponent = 0 if peak == 0 else int(np.frexp(peak)[1]) - 1 - FP16_EXPONENT
    # 2**126 is the greatest power whose inverse float32 still holds as a normal number.
    scale = np.float32(2.0 ** min(max(exponent, -126), 126))
    return (memory / scale).astype(np.float16), scale


def decode_fp16(codes: Array, scale: Array | np.float32) -> Array:
    """What the graphs decode: float16 (..., tokens, d_model) and scale (...) -> float32."""
    states: Array = codes.astype(np.float32) * np.asarray(scale)[..., None, None]
    return states


CODECS = (CodecFormat("fp16", _layout, Fp16Codec),)
