"""Passages -> memory in the store's codec: tokenised text through the memory encoder, then fp16 with a scale."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from runtime.backends import Array, Graph

__all__ = ["decode_fp16", "encode_fp16", "encode_passages", "pad_ids"]

FP16_EXPONENT = 14
"""A passage's largest value is stored between 2**14 and 2**15: below FP16's limit, far above its subnormals."""


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


def encode_fp16(memory: Array) -> tuple[Array, np.float32]:
    """The fp16 codec: float32 (tokens, d_model) -> float16 of the same shape and a power-of-two scale.

    `memory = codes * scale`. The scale is the passage's own, so states of any magnitude keep FP16's full precision
    and none overflows. Raises FloatingPointError where the memory is not finite.
    """
    peak = float(np.abs(memory).max())
    if not np.isfinite(peak):
        raise FloatingPointError("memory is not finite")
    exponent = 0 if peak == 0 else int(np.frexp(peak)[1]) - 1 - FP16_EXPONENT
    # 2**126 is the greatest power whose inverse float32 still holds as a normal number.
    scale = np.float32(2.0 ** min(max(exponent, -126), 126))
    return (memory / scale).astype(np.float16), scale


def decode_fp16(codes: Array, scale: Array | np.float32) -> Array:
    """What the graphs decode: float16 (..., tokens, d_model) and scale (...) -> float32."""
    states: Array = codes.astype(np.float32) * np.asarray(scale)[..., None, None]
    return states
