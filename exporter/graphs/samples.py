"""Random inputs for a graph at given sizes: for tracing it and for checking it against torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.contract import GraphIO, IOTensor, ModelShape

__all__ = ["Sizes", "sample_inputs"]


@dataclass(frozen=True)
class Sizes:
    """A value for each dimension that varies; `tokens` of stage B's input is question + passage."""

    batch: int
    passages: int
    selected: int
    question: int
    passage: int
    encoder_tokens: int
    prefix: int
    cache_length: int

    def resolve(self, dims: tuple[int | str, ...]) -> tuple[int, ...]:
        """Numbers for an I/O tensor's dims."""
        return tuple(self._size(dim) if isinstance(dim, str) else dim for dim in dims)

    def _size(self, name: str) -> int:
        size: int = self.question + self.passage if name == "tokens" else getattr(self, name)
        return size


def sample_inputs(io: GraphIO, shape: ModelShape, sizes: Sizes, *, seed: int) -> dict[str, NDArray[Any]]:
    """Random inputs that a run could bring, by name.

    Valid ids, masks with padding (one passage wholly absent), distinct selections, normal states, memory with
    power-of-two scales.
    """
    random = np.random.default_rng(seed)
    return {tensor.name: _sample(tensor, shape, sizes, random) for tensor in io.inputs}


def _sample(tensor: IOTensor, shape: ModelShape, sizes: Sizes, random: np.random.Generator) -> NDArray[Any]:
    dims = sizes.resolve(tensor.dims)
    values: NDArray[Any]
    match tensor.name:
        case "input_ids" | "decoder_input_ids":
            values = random.integers(0, shape.vocab_size, dims)
        case "attention_mask" | "question_mask" | "encoder_attention_mask" | "memory_mask":
            values = _mask(dims, random)
            if tensor.name == "memory_mask" and dims[1] > 1:
                values[-1, -1] = 0
        case "selected":
            order = [random.permutation(sizes.passages)[: sizes.selected] for _ in range(sizes.batch)]
            values = np.sort(np.array(order), axis=1)
        case "step":
            limit = min(sizes.prefix, shape.cache_length) if shape.traits.prefixes_decoder else sizes.cache_length
            values = random.integers(0, limit, dims)
        case "memory_scale":
            values = 2.0 ** random.integers(-12, -8, dims)
        case "memory" | "memory_outliers" | "memory_group_scale" if np.dtype(tensor.dtype).kind in "iu":
            limits = np.iinfo(tensor.dtype)
            values = random.integers(limits.min, limits.max, dims, endpoint=True)
        case "memory":
            values = random.normal(0, 1 << 10, dims)
        case "memory_channel_scale":
            values = random.uniform(0.5, 1.5, dims)
        case "memory_channel_order":
            values = random.permutation(*dims)
        case _:
            values = random.normal(0, 1, dims)
    array: NDArray[Any] = values.astype(tensor.dtype)
    return array


def _mask(dims: tuple[int, ...], random: np.random.Generator) -> NDArray[Any]:
    """1 up to a random length of at least one, 0 after."""
    lengths = random.integers(1, dims[-1] + 1, (*dims[:-1], 1))
    return (np.arange(dims[-1]) < lengths).astype(np.int32)
