"""The tensors of one shard of a memory store, in the order in which its file holds them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

__all__ = ["ShardTensor", "shard_tensors"]

SAFETENSORS_NAMES = {"float16": "F16", "float32": "F32", "int32": "I32", "int64": "I64"}


@dataclass(frozen=True)
class ShardTensor:
    """One tensor: dtype is numpy's name, shape in elements."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_bytes(self) -> int:
        """Size of the tensor's data."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def safetensors_dtype(self) -> str:
        """The dtype as a safetensors header names it."""
        return SAFETENSORS_NAMES[self.dtype]


def shard_tensors(num_passages: int, num_tokens: int, d_model: int, codec: str | None) -> tuple[ShardTensor, ...]:
    """What a shard holds: wide elements first, so that each tensor lies aligned. `codec` None: no memory."""
    offsets = ShardTensor("offsets", "int64", (num_passages + 1,))
    input_ids = ShardTensor("input_ids", "int32", (num_tokens,))
    if codec is None:
        return (offsets, input_ids)
    scale = ShardTensor("memory_scale", "float32", (num_passages,))
    return (offsets, scale, input_ids, ShardTensor("memory", "float16", (num_tokens, d_model)))
