"""Arrays in .npy and safetensors files: the only module that calls their readers, and makes their exceptions ours.

numpy reads a .npy header as a literal of Python's, by Python's own parser and tokenizer, and maps what it states.
safetensors raises, for a dtype that the framework does not have, what Python raises where it looks for it, and for a
file that the system will not map, MemoryError.
"""

from __future__ import annotations

import tokenize
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load

from glimmer_export.runtime.contract import GlimmerError
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line

__all__ = ["SafetensorsFile", "fault_of_rising", "map_npy", "read_arrays"]

NPY_RAISED = (
    EOFError, IndexError, MemoryError, OSError, OverflowError, RecursionError, SyntaxError, TypeError, ValueError,
    tokenize.TokenError,
)
"""What `open_memmap` was seen to raise for damaged headers, and for sizes that no file has."""
SAFETENSORS_RAISED = (SafetensorError, OSError, AttributeError, KeyError, MemoryError, TypeError, ValueError)
Named = Callable[[str], GlimmerError]


def map_npy(path: Path, named: Callable[[str], GlimmerError]) -> NDArray[Any]:
    """The array of a .npy file, mapped for reading; raises what `named` makes of numpy's reason if it is none.

    Its dtype and shape are for the caller to look at; they are within the file.
    """
    with (
        LibraryErrors(lambda kind: issubclass(kind, NPY_RAISED), lambda raised: named(first_line(raised))),
        np.errstate(over="ignore"),  # of a shape that no file has, and which is refused
    ):
        array: NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
    return array


def fault_of_rising(numbers: NDArray[np.int64], *, least: int, most: int, equals: int = 0) -> str | None:
    """What is wrong with numbers that are to rise from `least` at least to `most` at most; None if nothing is.

    So many of them may be, and are, equal to the one before.
    """
    steps = np.diff(numbers)
    same = int(np.count_nonzero(steps == 0)) if equals else 0
    falls = np.flatnonzero(steps < 0 if equals else steps <= 0)
    if falls.size:
        return f"{numbers[falls[0] + 1]} after {numbers[falls[0]]}"
    if same != equals:
        return f"{same} equals"
    if numbers.size and (numbers[0] < least or numbers[-1] > most):
        return f"{numbers[0]} to {numbers[-1]}"
    return None


def read_arrays(content: bytes, named: Named) -> dict[str, NDArray[Any]]:
    """The arrays of a file's content, by name; raises what `named` makes of the library's reason."""
    with _errors(named):
        return load(content)


class SafetensorsFile:
    """An opened file, of which single tensors are read. What cannot be read is an error that `named` makes."""

    def __init__(self, path: Path, named: Named, *, framework: str = "np") -> None:
        """`framework` is `np`, or `pt` for torch's tensors."""
        self._errors = _errors(named)
        with self._errors:
            self._file: Any = safe_open(path, framework=framework)
            self.names: list[str] = list(self._file.keys())

    def dtype(self, name: str) -> str:
        """As safetensors writes it, such as F32."""
        with self._errors:
            return cast("str", self._file.get_slice(name).get_dtype())

    def shape(self, name: str) -> tuple[int, ...]:
        """Dimensions."""
        with self._errors:
            return tuple(self._file.get_slice(name).get_shape())

    def tensor(self, name: str, named: Named | None = None) -> Any:
        """A whole tensor; what cannot be read of it is an error that its own `named` makes, if there is one."""
        with self._errors if named is None else _errors(named):
            return self._file.get_tensor(name)

    def rows(self, name: str, start: int, stop: int) -> Any:
        """Entries `start` to `stop` along the first axis."""
        with self._errors:
            return self._file.get_slice(name)[start:stop]


def _errors(named: Named) -> LibraryErrors:
    return LibraryErrors(lambda kind: issubclass(kind, SAFETENSORS_RAISED), lambda raised: named(first_line(raised)))
