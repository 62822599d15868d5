"""Selection between the stages: the m best of the k scored passages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract import NotFiniteError

__all__ = ["check_scores", "select_top_m", "take_selected"]


def check_scores(scores: Array, num_passages: Sequence[int]) -> None:
    """Raise NotFiniteError if one of the passages that are present has no finite score.

    Scores (b, k) float32 of rows that have `num_passages` passages each: sorting would put NaN in some place or other.
    """
    for row, count in enumerate(num_passages):
        unusable = np.flatnonzero(~np.isfinite(scores[row, :count]))
        if len(unusable):
            raise NotFiniteError(
                "graph live_stage_a", expected="a finite score for every passage",
                found=f"{scores[row, unusable[0]]} for passage {unusable[0] + 1} of {count}",
                fix="check the store with `glimmer-export memory verify`, and compare the bundle with its checkpoint: "
                "`glimmer-export parity`",
            )


def select_top_m(scores: Array, num_selected: int) -> Array:
    """The `num_selected` best passages of each row (GLIMMER paper, section 3.2).

    Scores (b, k) float32, -inf if a passage is absent -> selected (b, min(num_selected, k)) int32, in retrieval
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
