"""Selection between the stages: the m best of the k scored passages."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from runtime.backends import Array

__all__ = ["select_top_m", "take_selected"]


def select_top_m(scores: Array, num_selected: int) -> Array:
    """The `num_selected` best passages of each row (GLIMMER paper, section 3.2).

    Scores (b, k) float32, -inf where a passage is absent -> selected (b, min(num_selected, k)) int32, in retrieval
    order, since the decoder reads a set. Among equal scores the earlier retrieved wins; absent passages come last.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :num_selected]
    return np.sort(best, axis=1).astype(np.int32)


def take_selected(memory: Mapping[str, Array], selected: Array) -> dict[str, Array]:
    """A store's tensors (b, k, ...), `memory_mask` (b, k, n_p) among them -> those of the selected (b, m) alone.

    Token axes end where the longest of these does: what padding only the others needed costs stage B nothing.
    """
    rows = np.arange(len(selected))[:, None]
    tokens = max(1, int(memory["memory_mask"][rows, selected].sum(axis=2).max()))
    return {
        name: values[rows, selected, :tokens] if values.ndim > 2 else values[rows, selected]
        for name, values in memory.items()
    }
