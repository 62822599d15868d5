"""A file mapped for reading without a descriptor of it: a store may have more shards than a process has descriptors.

Python's own mapping keeps a descriptor for as long as it lasts.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import weakref
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract.files import open_file

__all__ = ["MappedFile"]

FAILED = ctypes.c_void_p(-1).value
MAP_LIMIT = "/proc/sys/vm/max_map_count"


class MappedFile:
    """Read-only views of a file, which stay valid for as long as one of them is there."""

    def __init__(self, path: Path) -> None:
        """Map a regular file; raises OSError, and with the limit's name where the system has no more mappings."""
        with open_file(path) as stream:
            self.size = os.fstat(stream.fileno()).st_size
            self._bytes: Any = _mapping(stream.fileno(), self.size) if self.size else b""

    def view(self, dtype: str, count: int, begin: int) -> Array:
        """`count` elements from the byte `begin` on, (count,), not to be written."""
        values = np.frombuffer(self._bytes, dtype, count, begin)
        values.flags.writeable = False
        return values

    def content(self, begin: int, end: int) -> bytes:
        """A copy of these bytes."""
        return bytes(memoryview(self._bytes)[begin:end])

    def read_ahead(self, begin: int, end: int) -> None:
        """Have the system begin to read these bytes, and return at once; nothing happens if they are there."""
        page = begin - begin % mmap.PAGESIZE
        _system().madvise(ctypes.addressof(self._bytes) + page, end - page, mmap.MADV_WILLNEED)


def _mapping(descriptor: int, size: int) -> Any:
    system = _system()
    address = system.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address == FAILED:
        number = ctypes.get_errno()
        reason = os.strerror(number)
        if number == errno.ENOMEM:
            reason = f"{reason}: the process may have no more mappings; raise {MAP_LIMIT}, or the limit of its memory"
        raise OSError(number, reason)
    mapped = (ctypes.c_ubyte * size).from_address(address)
    let_go = weakref.finalize(mapped, system.munmap, address, size)
    let_go.atexit = False  # views may be read until the very end
    return mapped


@cache
def _system() -> Any:
    system = ctypes.CDLL(None, use_errno=True)
    system.mmap.restype = ctypes.c_void_p
    system.mmap.argtypes = (
        ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
    )
    system.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    system.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return system
