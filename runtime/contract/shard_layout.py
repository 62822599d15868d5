"""The tensors of one shard of a memory store, in the order in which its file holds them, and a passage's checksum."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.codecs import codec_layout
from glimmer_export.runtime.contract.store_layout import ShardEntry

__all__ = ["CHECKSUMS", "ShardTensor", "entry_tensors", "passage_checksum", "shard_tensors"]

CHECKSUMS = "checksums"
SAFETENSORS_NAMES = {
    "int64": "I64", "float32": "F32", "uint32": "U32", "int32": "I32", "float16": "F16", "uint8": "U8",
}
"""In the order in which the library writes them."""


@dataclass(frozen=True)
class ShardTensor:
    """One tensor: dtype is numpy's name, shape in elements.

    Of a codec's tensors, `entry` says whether they have one entry a `token` or one a `passage`.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    entry: str | None = None

    @property
    def num_bytes(self) -> int:
        """Size of the tensor's data."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def safetensors_dtype(self) -> str:
        """The dtype as a safetensors header names it."""
        return SAFETENSORS_NAMES[self.dtype]


def shard_tensors(
    num_passages: int, num_tokens: int, d_model: int, codec: str | None, *, checksums: bool = True
) -> tuple[ShardTensor, ...]:
    """What a shard holds, in safetensors' own order: wide elements first, so that each tensor lies aligned.

    `codec` None: no memory. Without `checksums` it is one of before schema 5.
    """
    tensors = [ShardTensor("offsets", "int64", (num_passages + 1,)), ShardTensor("input_ids", "int32", (num_tokens,))]
    if checksums:
        tensors.append(ShardTensor(CHECKSUMS, "uint32", (num_passages,)))
    if codec is not None:
        layout = codec_layout(codec, d_model)
        parts = (("passage", num_passages, layout.per_passage), ("token", num_tokens, layout.per_token))
        for entry, entries, part in parts:
            tensors += [ShardTensor(tensor.name, tensor.dtype, (entries, *tensor.shape), entry) for tensor in part]
    return tuple(sorted(tensors, key=lambda tensor: (list(SAFETENSORS_NAMES).index(tensor.dtype), tensor.name)))


def entry_tensors(shard: ShardEntry, d_model: int, codec: str | None) -> tuple[ShardTensor, ...]:
    """What the shard of a manifest's entry holds."""
    return shard_tensors(shard.num_passages, shard.num_tokens, d_model, codec, checksums=shard.checksums)


def passage_checksum(parts: Iterable[NDArray[Any]]) -> int:
    """CRC-32 of a passage: of its token ids (tokens,) int32, then of its rows of the codec's tensors as they follow.

    The rows are contiguous. One bit that has flipped always changes it, and other damage but once in four billion.
    """
    checksum = 0
    for part in parts:
        checksum = crc32(part.data, checksum)
    return checksum
