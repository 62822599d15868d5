"""Memory of single passages in the store's codec, and its layout as the graphs read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["PassageMemory", "memory_mask", "memory_scale", "padded_memory", "write_codes"]


@dataclass(frozen=True, eq=False)
class PassageMemory:
    """One passage in the fp16 codec: codes (tokens, d_model) float16, and their scale.

    `key` is the store it comes from and its number there; None for a text that was encoded on the spot.
    """

    codes: NDArray[Any]
    scale: np.float32
    key: tuple[object, int] | None = None


def padded_memory(rows: Sequence[Sequence[PassageMemory]], num_tokens: int) -> dict[str, NDArray[Any]]:
    """Memory of each row's passages, padded to the most passages k and to `num_tokens` n_p, all 0 where absent.

    `memory` (b, k, n_p, d_model) float16, `memory_scale` (b, k) float32, `memory_mask` (b, k, n_p) int32.
    """
    num_passages = max(map(len, rows))
    memory = np.zeros((len(rows), num_passages, num_tokens, rows[0][0].codes.shape[1]), np.float16)
    write_codes(memory, rows)
    return {"memory": memory, "memory_scale": memory_scale(rows), "memory_mask": memory_mask(rows, num_tokens)}


def write_codes(memory: NDArray[Any], rows: Sequence[Sequence[PassageMemory]]) -> None:
    """Write each passage's codes into its place of zeros (b, k, n_p, d_model) float16."""
    for batch, row in enumerate(rows):
        for place, passage in enumerate(row):
            memory[batch, place, : len(passage.codes)] = passage.codes


def memory_scale(rows: Sequence[Sequence[PassageMemory]]) -> NDArray[np.float32]:
    """Scales (b, k) float32, 1 where a passage is absent."""
    scale = np.ones((len(rows), max(map(len, rows))), np.float32)
    for batch, row in enumerate(rows):
        scale[batch, : len(row)] = [passage.scale for passage in row]
    return scale


def memory_mask(rows: Sequence[Sequence[PassageMemory]], num_tokens: int) -> NDArray[np.int32]:
    """Which of n_p tokens are a passage's, (b, k, n_p) int32."""
    lengths = np.zeros((len(rows), max(map(len, rows)), 1), np.int32)
    for batch, row in enumerate(rows):
        lengths[batch, : len(row), 0] = [len(passage.codes) for passage in row]
    return (np.arange(num_tokens) < lengths).astype(np.int32)
