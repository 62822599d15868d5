"""Arrays in .npy files, mapped: the only module that calls numpy's reader, and in which its exceptions become ours.

numpy reads the header as a literal of Python's, by Python's own parser and tokenizer, and maps what it states.
"""

from __future__ import annotations

import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.contract import GlimmerError
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line

__all__ = ["map_npy"]

RAISED = (
    EOFError, MemoryError, OSError, OverflowError, RecursionError, SyntaxError, TypeError, ValueError,
    tokenize.TokenError,
)
"""What `open_memmap` was seen to raise for damaged headers, and for sizes that no file has."""


def map_npy(path: Path, named: Callable[[str], GlimmerError]) -> NDArray[Any]:
    """The array of a .npy file, mapped for reading; raises what `named` makes of numpy's reason where it is none.

    Its dtype and shape are for the caller to look at; they are within the file.
    """
    with (
        LibraryErrors(lambda kind: issubclass(kind, RAISED), lambda raised: named(first_line(raised))),
        np.errstate(over="ignore"),  # of a shape that no file has, and which is refused
    ):
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    return array
