"""Memory for arrays that are written anew for every batch.

Fresh memory is zeroed and mapped by the system page by page, which costs more than to read the passages into it.
"""

from __future__ import annotations

import sys
from math import prod
from threading import Lock

import numpy as np
from numpy.typing import DTypeLike, NDArray

from glimmer_export.runtime.backends import Array

__all__ = ["BufferPool"]

ALIGNMENT = 64
KEPT = 16
"""Buffers kept at most: those of two questions at a time that are in different stages."""


class BufferPool:
    """Gives out arrays, and their memory again once nothing refers to them. Safe from several threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._buffers: list[NDArray[np.uint8]] = []

    def take(self, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
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
