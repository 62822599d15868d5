"""Random inputs for a graph at given sizes: for tracing it and for checking it against torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.codecs import CodecTensor
from glimmer_export.runtime.codecs.contract import MEMORY_SCALE, is_codec_tensor
from glimmer_export.runtime.contract import GraphIO, IOTensor, ModelShape

__all__ = ["Sizes", "sample_inputs"]


@dataclass(frozen=True)
class Sizes:
    """A value for each dimension that varies; `tokens` of stage B's input is question + passage.

    `shortlisted` None: all passages.
    """

    batch: int
    passages: int
    selected: int
    question: int
    passage: int
    encoder_tokens: int
    prefix: int
    cache_length: int
    positions: int = 1
    shortlisted: int | None = None

    def resolve(self, dims: tuple[int | str, ...]) -> tuple[int, ...]:
        """Numbers for an I/O tensor's dims."""
        return tuple(self._size(dim) if isinstance(dim, str) else dim for dim in dims)

    def _size(self, name: str) -> int:
        if name == "shortlisted" and self.shortlisted is None:
            return self.passages
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
            of = "shortlisted" if shape.num_shortlisted and tensor.dims[1] == "selected" else "passages"
            order = [random.permutation(*sizes.resolve((of,)))[: dims[1]] for _ in range(sizes.batch)]
            values = np.sort(np.array(order), axis=1)
        case "step":
            limit = min(sizes.prefix, shape.cache_length) if shape.traits.prefixes_decoder else sizes.cache_length
            values = random.integers(0, limit, dims)
        case name if is_codec_tensor(name):
            values = _stored(CodecTensor(name, tensor.dtype, dims), random)
        case _:
            values = random.normal(0, 1, dims)
    array: NDArray[Any] = values.astype(tensor.dtype)
    return array


def _stored(tensor: CodecTensor, random: np.random.Generator) -> NDArray[Any]:
    """What any codec may have in such a tensor: every code, an order of the last axis, scales, or other numbers."""
    if tensor.name == MEMORY_SCALE:
        return 2.0 ** random.integers(-12, -8, tensor.shape)
    if tensor.is_scale:
        return random.uniform(0.5, 1.5, tensor.shape)
    if tensor.dtype == "uint8":
        return random.integers(0, 255, tensor.shape, endpoint=True)
    if tensor.dtype == "int32":
        return random.permuted(np.broadcast_to(np.arange(tensor.shape[-1]), tensor.shape), axis=-1)
    return random.normal(0, 1 << 10 if tensor.name == "memory" else 1, tensor.shape)


def _mask(dims: tuple[int, ...], random: np.random.Generator) -> NDArray[Any]:
    """1 up to a random length of at least one, 0 after."""
    lengths = random.integers(1, dims[-1] + 1, (*dims[:-1], 1))
    return (np.arange(dims[-1]) < lengths).astype(np.int32)
