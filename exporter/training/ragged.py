"""Rows of different lengths in one array, which grows: a million short lists cost what is in them."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["Ragged"]

FIRST_ROOM = 1024


class Ragged:
    """Rows of int32 numbers, appended one by one; row i is a view (length,) of the array that has them all."""

    def __init__(self) -> None:
        self._values = np.empty(FIRST_ROOM, np.int32)
        self._ends = array("q", [0])

    @classmethod
    def of(cls, rows: Iterable[Sequence[int] | NDArray[np.int32]]) -> Self:
        """All rows at once."""
        ragged = cls()
        for row in rows:
            ragged.append(row)
        return ragged

    def append(self, row: Sequence[int] | NDArray[np.int32]) -> int:
        """Add a row; returns its number. Views that were handed out stay as they are."""
        start = self._ends[-1]
        end = start + len(row)
        if end > len(self._values):
            grown = np.empty(max(end, 2 * len(self._values)), np.int32)
            grown[:start] = self._values[:start]
            self._values = grown
        self._values[start:end] = row
        self._ends.append(end)
        return len(self) - 1

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> NDArray[np.int32]:
        if not 0 <= number < len(self):
            raise IndexError(number)
        return self._values[self._ends[number] : self._ends[number + 1]]
