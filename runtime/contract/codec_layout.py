"""The codecs of a memory store: the tensors that a passage's memory becomes, and the arrays that all passages share.

The same names stand in a store's shards, in its `codec.safetensors`, and among the inputs of the graphs that read
memory, which decode it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

__all__ = ["CODECS", "CODE_ZERO", "GROUP_CHANNELS", "CodecLayout", "CodecTensor", "codec_layout", "pq_width"]

CODECS = ("fp16", "int8", "int4", "pq8x", "pq16x")
GROUP_CHANNELS = 64
"""Channels of one scale in the int4 codec."""
CHANNELS_PER_OUTLIER = 32
"""The int4 codec keeps one channel of so many in eight bits."""
CENTROIDS = 256
CODE_ZERO = 128
"""What stands for 0 in a code of eight bits: TensorRT reads UINT8 as it comes, and INT8 between Q/DQ alone."""


@dataclass(frozen=True)
class CodecTensor:
    """One tensor of a codec; dtype is numpy's name, `shape` that of one token, one passage, or the whole array."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size of `shape`."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class CodecLayout:
    """What a codec makes of memory: tensors with one entry a token, or one a passage, and arrays of the whole store."""

    name: str
    per_token: tuple[CodecTensor, ...]
    per_passage: tuple[CodecTensor, ...] = ()
    arrays: tuple[CodecTensor, ...] = ()

    @property
    def bytes_per_token(self) -> int:
        """Stored bytes of one token, less what is kept a passage."""
        return sum(tensor.num_bytes for tensor in self.per_token)


def codec_layout(name: str, d_model: int) -> CodecLayout:
    """The layout of a codec at a width; raises ValueError for an unknown one, or one that does not fit the width."""
    scale = CodecTensor("memory_scale", "float32", ())
    channel_scale = CodecTensor("memory_channel_scale", "float32", (d_model,))
    if name == "fp16":
        return CodecLayout(name, (CodecTensor("memory", "float16", (d_model,)),), per_passage=(scale,))
    if name == "int8":
        return CodecLayout(name, (CodecTensor("memory", "uint8", (d_model,)), scale), arrays=(channel_scale,))
    if name == "int4":
        groups = -(-d_model // GROUP_CHANNELS)
        codes = CodecTensor("memory", "uint8", (groups * GROUP_CHANNELS // 2,))
        outliers = CodecTensor("memory_outliers", "uint8", (max(1, d_model // CHANNELS_PER_OUTLIER),))
        group_scale = CodecTensor("memory_group_scale", "uint8", (groups,))
        order = CodecTensor("memory_channel_order", "int32", (d_model,))
        return CodecLayout(name, (codes, outliers, group_scale, scale), arrays=(channel_scale, order))
    if name in ("pq8x", "pq16x"):
        width = pq_width(name)
        if d_model % width:
            raise ValueError(f"{name} codes {width} channels at a time, and {d_model} is not a multiple of that")
        codebook = CodecTensor("memory_codebook", "float32", (d_model // width, CENTROIDS, width))
        return CodecLayout(
            name, (CodecTensor("memory", "uint8", (d_model // width,)), scale), arrays=(channel_scale, codebook)
        )
    raise ValueError(f"unknown codec {name!r}")


def pq_width(name: str) -> int:
    """Channels that one byte stands for in a product quantisation: `pq8x` is 8 times smaller than fp16."""
    return int(name.removeprefix("pq").removesuffix("x")) // 2
