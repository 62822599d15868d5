"""Selection between the stages: the m best of the k scored passages."""

from __future__ import annotations

import numpy as np

from runtime.backends import Array

__all__ = ["select_top_m"]


def select_top_m(scores: Array, num_selected: int) -> Array:
    """The `num_selected` best passages of each row (GLIMMER paper, section 3.2).

    Scores (b, k) float32, -inf where a passage is absent -> selected (b, min(num_selected, k)) int32, in retrieval
    order, since the decoder reads a set. Among equal scores the earlier retrieved wins; absent passages come last.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :num_selected]
    return np.sort(best, axis=1).astype(np.int32)
