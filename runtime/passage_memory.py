"""Memory of single passages: made by the memory encoder, in a store's codec, and laid out as the graphs read it.

The arrays that it is laid out in are written anew for every batch. Fresh memory is zeroed and mapped by the system page
by page, which costs more than to read the passages into it, so a pool keeps them.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from math import prod
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

if TYPE_CHECKING:
    from glimmer_export.runtime.backends.contract import Graph

__all__ = [
    "CODES",
    "BufferPool",
    "PassageMemory",
    "encode_passages",
    "pad_ids",
    "padded_memory",
    "padded_small",
    "write_codes",
]

Take = Callable[[tuple[int, ...], "np.dtype[Any]"], NDArray[Any]]

CODES = "memory"
"""The tensor that every codec has, with codes for each token; whatever stands beside it is small."""
ALIGNMENT = 64
KEPT = 16
"""Buffers kept at most: those of two questions at a time that are in different stages."""


class PassageMemory(NamedTuple):
    """One passage in a codec: its tensors (tokens, ...), and (...) if the codec has one a passage.

    `key` is the store it comes from and its number there; None for a text that was encoded on the spot.
    """

    tensors: Mapping[str, NDArray[Any]]
    key: tuple[object, int] | None = None

    @property
    def codes(self) -> NDArray[Any]:
        """The codes (tokens, ...)."""
        return self.tensors[CODES]

    @property
    def num_tokens(self) -> int:
        """Length of the passage."""
        return len(self.codes)


def padded_memory(
    rows: Sequence[Sequence[PassageMemory]], num_tokens: int, take: Take = np.empty
) -> dict[str, NDArray[Any]]:
    """Memory of each row's passages, padded to the most passages k and to `num_tokens` n_p, all 0 if absent.

    The codec's tensors (b, k, n_p, ...), those that it has for a passage (b, k, ...), and `memory_mask` (b, k, n_p)
    int32. `take(shape, dtype)` gives the arrays to be written.
    """
    codes = rows[0][0].codes
    memory = take((len(rows), max(map(len, rows)), num_tokens, *codes.shape[1:]), codes.dtype)
    write_codes(memory, rows)
    return {CODES: memory, **padded_small(rows, num_tokens, take)}


def write_codes(memory: NDArray[Any], rows: Sequence[Sequence[PassageMemory]]) -> None:
    """Write each passage's codes into its place of memory (b, k, n_p, ...), and 0 wherever there is none."""
    _write(memory, rows, CODES)


def padded_small(
    rows: Sequence[Sequence[PassageMemory]], num_tokens: int, take: Take = np.empty
) -> dict[str, NDArray[Any]]:
    """What `padded_memory` has beside the codes."""
    places = (len(rows), max(map(len, rows)))
    padded = {}
    for name, first in rows[0][0].tensors.items():
        if name != CODES:
            shape = (num_tokens, *first.shape[1:]) if first.ndim else ()
            padded[name] = take((*places, *shape), first.dtype)
            _write(padded[name], rows, name)
    mask = take((*places, num_tokens), np.dtype(np.int32))
    for passages, row in zip(mask, rows, strict=True):
        lengths = np.zeros((places[1], 1), np.int32)
        lengths[: len(row), 0] = [len(tensors[CODES]) for tensors, _ in row]
        np.less(np.arange(num_tokens, dtype=np.int32), lengths, out=passages, casting="unsafe")
    return {**padded, "memory_mask": mask}


def _write(target: NDArray[Any], rows: Sequence[Sequence[PassageMemory]], name: str) -> None:
    for places, row in zip(target, rows, strict=True):
        places[len(row) :] = 0
        if not row[0].tensors[name].ndim:
            places[: len(row)] = [passage.tensors[name] for passage in row]
            continue
        num_tokens = places.shape[1]
        for place, (tensors, _) in enumerate(row):
            values = tensors[name]
            length = len(values)
            places[place, :length] = values
            if length < num_tokens:
                places[place, length:] = 0


def encode_passages(
    memory_encoder: Graph, passages: Sequence[Sequence[int]], length: int | None = None
) -> list[NDArray[Any]]:
    """Memory of one batch of tokenised passages: a float32 array (tokens, d_model) each, without padding.

    The graph reads them padded to `length` (None: to the longest), no more at a time than it takes.
    """
    most = getattr(memory_encoder, "max_batch", None) or len(passages)  # as a DeviceGraph says
    encoded: list[NDArray[Any]] = []
    for start in range(0, len(passages), most):
        batch = passages[start : start + most]
        input_ids, attention_mask = pad_ids(batch, length)
        states = memory_encoder.run({"input_ids": input_ids, "attention_mask": attention_mask})["hidden_states"]
        encoded += [states[row, : len(ids)] for row, ids in enumerate(batch)]
    return encoded


def pad_ids(rows: Sequence[Sequence[int]], length: int | None = None) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows of token ids, padded on the right to `length` (None: to the longest): ids and mask, (rows, tokens) int32."""
    length = length or max(map(len, rows))
    ids = np.zeros((len(rows), length), np.int32)
    mask = np.zeros((len(rows), length), np.int32)
    for row, values in enumerate(rows):
        ids[row, : len(values)] = values
        mask[row, : len(values)] = 1
    return ids, mask


class BufferPool:
    """Gives out arrays, and their memory again once nothing refers to them. Safe from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._buffers: list[NDArray[np.uint8]] = []

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array whose content is undefined."""
        num_bytes = prod(shape) * np.dtype(dtype).itemsize
        with self._lock:
            buffer = self._idle(num_bytes)
        return buffer[:num_bytes].view(dtype).reshape(shape)

    def _idle(self, num_bytes: int) -> NDArray[np.uint8]:
        """A buffer that no array refers to: the smallest that is large enough, or else a new one."""
        buffers = self._buffers
        for place in range(len(buffers)):  # by size, so that the first that fits is the smallest
            if len(buffers[place]) >= num_bytes and sys.getrefcount(buffers[place]) == IDLE:
                return buffers[place]
        buffer = np.empty(-(-max(num_bytes, 1) // ALIGNMENT) * ALIGNMENT, np.uint8)
        if len(buffers) == KEPT and sys.getrefcount(buffers[0]) == IDLE:
            del buffers[0]
        if len(buffers) < KEPT:
            buffers.append(buffer)
            buffers.sort(key=len)
        return buffer


def _idle_references() -> int:
    """References to an array that a list alone holds, as they are counted above."""
    buffers = [np.empty(1, np.uint8)]
    return sys.getrefcount(buffers[0])


IDLE = _idle_references()
