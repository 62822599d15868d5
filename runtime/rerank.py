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


def take_selected(tensors: Mapping[str, Array], selected: Array) -> dict[str, Array]:
    """Tensors of the k passages (b, k, ...), `memory_mask` (b, k, n_p) among them -> of the selected (b, m) alone.

    Token axes, which all end with the passage's own n_p tokens, end where the longest of these does: what padding only
    the others needed costs stage B nothing.
    """
    rows = np.arange(len(selected))[:, None]
    mask = tensors["memory_mask"]
    padding = min(mask.shape[2] - 1, mask.shape[2] - int(mask[rows, selected].sum(axis=2).max()))
    return {
        name: values[rows, selected, : values.shape[2] - padding] if values.ndim > 2 else values[rows, selected]
        for name, values in tensors.items()
    }
