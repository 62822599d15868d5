"""Ids that occur twice, found in eight bytes an id."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

__all__ = ["IdHashes"]

Place = TypeVar("Place")
AT_ONCE = 1 << 16


class IdHashes:
    """A 64-bit hash of every id. Two ids may share one: so a second look tells those that are in fact the same."""

    def __init__(self) -> None:
        self._hashes = array("q")

    def add(self, identifier: int | str) -> None:
        """Take an id in."""
        self._hashes.append(hash(identifier))

    def first_repeated(
        self, ids: Callable[[], Iterable[tuple[Place, int | str]]]
    ) -> tuple[int | str, Place, Place] | None:
        """An id that occurs twice, with the places of the two; None where there is none.

        `ids` gives what was taken in once more, each with its place; it is called only where hashes are equal.
        """
        hashes = np.sort(np.frombuffer(self._hashes, np.int64))
        shared = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
        for start in range(0, len(shared), AT_ONCE):  # a corpus that was appended to itself shares every one
            wanted = set(shared[start : start + AT_ONCE].tolist())
            seen: dict[int | str, Place] = {}
            for place, identifier in ids():
                if hash(identifier) in wanted and (earlier := seen.setdefault(identifier, place)) != place:
                    return identifier, earlier, place
        return None
