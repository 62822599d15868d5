"""Whether a file or directory is held by another process: a lock that goes with its process, however that ends."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["held_alone"]


@contextmanager
def held_alone(path: Path, flags: int = os.O_RDONLY) -> Iterator[bool]:
    """Hold the lock of what is at `path`, opened with `flags`.

    Yields False where another process has it, shared or not, or where the file system knows no locks.
    """
    descriptor = os.open(path, flags)
    try:
        free = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            free = False
        yield free
    finally:
        os.close(descriptor)
