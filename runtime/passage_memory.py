"""Memory of single passages in a store's codec, and its layout as the graphs read it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["CODES", "PassageMemory", "padded_memory", "padded_small", "write_codes"]

Take = Callable[[tuple[int, ...], "np.dtype[Any]"], NDArray[Any]]

CODES = "memory"
"""The tensor that every codec has, with codes for each token; whatever stands beside it is small."""


class PassageMemory(NamedTuple):
    """One passage in a codec: its tensors (tokens, ...), and (...) where the codec has one a passage.

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
    """Memory of each row's passages, padded to the most passages k and to `num_tokens` n_p, all 0 where absent.

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
