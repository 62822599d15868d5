"""The int8 codec's arrays: a scale for each channel."""

from __future__ import annotations

import numpy as np

from glimmer_export.runtime.codecs import Array, CodecLayout
from glimmer_export.runtime.codecs.int8 import INT8_LIMIT

__all__ = ["channel_scale", "fit", "levelled"]

EVENING = 0.75
"""How far channels are evened out: their scale is this power of their root mean square over tokens of equal norm.

At 1, a step of each channel is in proportion to its values, and at 0 the same for all: the error of the whole is least
in between.
"""
LEAST_CHANNEL_SCALE = 2.0**-6
"""Of the largest: a channel that is 0 in the sample may not be so elsewhere."""


def fit(_: CodecLayout, rows: Array) -> dict[str, Array]:
    """As `CodecFit`."""
    return {"memory_channel_scale": channel_scale(rows) / np.float32(INT8_LIMIT)}


def channel_scale(rows: Array) -> Array:
    """How large the channels are beside each other, (d_model,) float32, the largest 1; all 1 where all rows are 0."""
    level = levelled(rows)
    size = np.sqrt(np.square(level, dtype=np.float64).mean(0)) ** EVENING if len(level) else np.zeros(rows.shape[1])
    peak = size.max()
    if peak == 0:
        return np.ones(rows.shape[1], np.float32)
    scale: Array = np.maximum(size / peak, LEAST_CHANNEL_SCALE).astype(np.float32)
    return scale


def levelled(rows: Array) -> Array:
    """Rows that are not 0, each divided by its largest value and then its norm: none outweighs another in the fit."""
    peaks = np.abs(rows).max(-1, initial=0)
    level = rows[peaks > 0] / peaks[peaks > 0, None]
    even: Array = level / np.sqrt(np.square(level).mean(-1, keepdims=True))
    return even
