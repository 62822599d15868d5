"""What a codec is: its tensors, its arrays, how it encodes and decodes; and what codecs with scales share."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "CODE_ZERO", "MEMORY_SCALE", "Array", "Codec", "CodecArrayError", "CodecFit", "CodecFormat", "CodecLayout",
    "CodecTensor", "GraphDecode", "is_codec_tensor", "scaled_by_token", "token_scale",
]  # fmt: skip

Array = NDArray[Any]

MEMORY_SCALE = "memory_scale"
"""The tensor or array with which every codec's decoding ends; a stage may apply it to something smaller instead."""
DTYPES = ("float32", "float16", "int32", "uint8")
"""What shards hold and graphs take: TensorRT reads UINT8 as it comes, and INT8 between Q/DQ alone."""
CODE_ZERO = 128
"""What stands for 0 in a code of eight bits."""
NOT_OF_A_CODEC = ("memory_mask", "memory_states", "memory_states_mask")
"""What graphs call other things that have to do with memory."""
SMALLEST_SCALE = np.float32(2.0**-126)
"""Below it float32 loses bits, and a runtime that flushes subnormals would read 0."""


@dataclass(frozen=True)
class CodecTensor:
    """One tensor of a codec; dtype is numpy's name, `shape` that of one token, one passage, or the whole array.

    Raises ValueError for a name that no codec's tensor may have, and for a dtype that shards or graphs do not have.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not is_codec_tensor(self.name):
            raise ValueError(f"tensor {self.name!r}: `memory`, or a name that begins with it, none of {NOT_OF_A_CODEC}")
        if self.dtype not in DTYPES:
            raise ValueError(f"tensor {self.name}, {self.dtype}: a dtype of {DTYPES}")

    @property
    def num_bytes(self) -> int:
        """Size of `shape`."""
        return prod(self.shape) * np.dtype(self.dtype).itemsize

    @property
    def is_scale(self) -> bool:
        """Whether its values are scales, by its name: above 0."""
        return self.name.endswith("_scale") and self.dtype == "float32"


@dataclass(frozen=True)
class CodecLayout:
    """What a codec makes of memory: tensors with one entry a token, or one a passage, and arrays of the whole store.

    The same names stand in a store's shards, in its `codec.safetensors`, and among the inputs of the graphs that read
    memory. One is `memory`, with an entry a token, and one `memory_scale`, float32: () a token or a passage, (1,) as an
    array. Raises ValueError for a layout without these, or with a name twice.
    """

    name: str
    per_token: tuple[CodecTensor, ...]
    per_passage: tuple[CodecTensor, ...] = ()
    arrays: tuple[CodecTensor, ...] = ()

    def __post_init__(self) -> None:
        names = Counter(tensor.name for tensor in (*self.per_token, *self.per_passage, *self.arrays))
        scales = [
            tensor for part, shape in ((self.per_token, ()), (self.per_passage, ()), (self.arrays, (1,)))
            for tensor in part if (tensor.name, tensor.dtype, tensor.shape) == (MEMORY_SCALE, "float32", shape)
        ]
        if len(scales) != 1 or "memory" not in {tensor.name for tensor in self.per_token} or max(names.values()) > 1:
            raise ValueError(f"codec {self.name}: each name once, a `memory` for every token, and a `{MEMORY_SCALE}`")

    @property
    def bytes_per_token(self) -> int:
        """Stored bytes of one token, less what is kept a passage."""
        return sum(tensor.num_bytes for tensor in self.per_token)


class CodecArrayError(ValueError):
    """What `CodecFormat.open` raises for an array whose values no fit gives."""

    def __init__(self, array: str, *, expected: str, found: str) -> None:
        super().__init__(f"{array}: expected {expected}, found {found}")
        self.array, self.expected, self.found = array, expected, found


class Codec(Protocol):
    """Memory of a passage <-> the tensors of a layout. Immutable, safe from several threads."""

    @property
    def layout(self) -> CodecLayout:
        """The tensors and arrays by name."""
        ...

    @property
    def arrays(self) -> Mapping[str, Array]:
        """What all passages share, as graphs are given it."""
        ...

    def encode(self, memory: Array) -> dict[str, Array]:
        """float32 (tokens, d_model) -> tensors (tokens, ...), and (...) where the layout has one a passage.

        Raises FloatingPointError where the memory is not finite.
        """
        ...

    def decode(self, tensors: Mapping[str, Array]) -> Array:
        """Tensors (..., tokens, ...), one a passage (...), of any leading dimensions -> float32 (..., tokens, d_model).

        The order of its float32 operations is that of the graphs.
        """
        ...


GraphDecode = Callable[[CodecLayout, Mapping[str, Any]], Any]
"""Layout and torch tensors by name, (b, k, n_p, ...), one a passage (b, k, ...), arrays as they are -> the memory
(b, k, n_p, d_model) float32, not yet times `memory_scale`. Its operators are those that every target has."""
CodecFit = Callable[[CodecLayout, Array], Mapping[str, Array]]
"""Layout and rows (n, d_model) float32 of a corpus's memory, all finite, maybe none -> the layout's arrays by name."""


@dataclass(frozen=True)
class CodecFormat:
    """A codec as it is registered: by its name, what its tensors are and what opens it.

    `layout` takes the width d_model and raises ValueError for one that the codec cannot have. `open` takes a layout and
    its arrays, of the right dtypes and shapes, finite and the scales above 0; it raises CodecArrayError for others that
    no fit gives.

    The build side needs more: `graph_decode` to export graphs, `fit` to build stores if the layout has arrays. A device
    does without. Our own codecs have both in modules of the name `module`, which no other codec gives.
    """

    name: str
    layout: Callable[[int], CodecLayout]
    open: Callable[[CodecLayout, Mapping[str, Array]], Codec]
    graph_decode: GraphDecode | None = None
    fit: CodecFit | None = None
    module: str | None = None

    @property
    def is_own(self) -> bool:
        """Whether every process of ours has it; another is in those alone that registered it."""
        return self.module is not None


def is_codec_tensor(name: str) -> bool:
    """Whether a graph's input of this name is memory as a codec has it."""
    return name.startswith("memory") and name not in NOT_OF_A_CODEC


def token_scale(peak: Array) -> Array:
    """The scale of each token, (tokens,) float32, from its peak in units of the scale; 1 where a token is all zero.

    Raises FloatingPointError where a peak is not finite, as it is where any of its token's values is not.
    """
    if not np.isfinite(peak).all():
        raise FloatingPointError("memory is not finite")
    scale: Array = np.where(peak == 0, np.float32(1), np.maximum(peak, SMALLEST_SCALE))
    return scale


def scaled_by_token(values: Array, scale: Array) -> Array:
    """Values (..., tokens, d_model) float32 times the scale (..., tokens) float32 of each token."""
    states: Array = values * scale[..., None]
    return states
