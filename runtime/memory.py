"""Passages -> memory: tokenised text through the memory encoder."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glimmer_export.runtime.backends import Array, Graph

__all__ = ["encode_passages", "pad_ids"]


def encode_passages(
    memory_encoder: Graph, passages: Sequence[Sequence[int]], length: int | None = None
) -> list[Array]:
    """Memory of one batch of tokenised passages: a float32 array (tokens, d_model) each, without padding.

    The graph reads them padded to `length` (None: to the longest).
    """
    input_ids, attention_mask = pad_ids(passages, length)
    states = memory_encoder.run({"input_ids": input_ids, "attention_mask": attention_mask})["hidden_states"]
    return [states[row, : len(ids)] for row, ids in enumerate(passages)]


def pad_ids(rows: Sequence[Sequence[int]], length: int | None = None) -> tuple[Array, Array]:
    """Rows of token ids, padded on the right to `length` (None: to the longest): ids and mask, (rows, tokens) int32."""
    length = length or max(map(len, rows))
    ids = np.zeros((len(rows), length), np.int32)
    mask = np.zeros((len(rows), length), np.int32)
    for row, values in enumerate(rows):
        ids[row, : len(values)] = values
        mask[row, : len(values)] = 1
    return ids, mask
