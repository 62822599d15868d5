"""The int4 codec's arrays: a scale for each channel, and where it lies among those of four bits and of eight."""

from __future__ import annotations

import numpy as np

from glimmer_export.exporter.memory.codecs.int8 import channel_scale, levelled
from glimmer_export.runtime.codecs import Array, CodecLayout
from glimmer_export.runtime.codecs.int4 import GROUP_CHANNELS, GROUP_SCALE_LIMIT, INT4_LIMIT
from glimmer_export.runtime.codecs.int8 import INT8_LIMIT

__all__ = ["fit"]

OUTLIER_QUANTILE = 0.999


def fit(layout: CodecLayout, rows: Array) -> dict[str, Array]:
    """As `CodecFit`. The channels kept in eight bits are those that, with all evened, have the largest values."""
    shapes = {tensor.name: tensor.shape[0] for tensor in layout.per_token if tensor.shape}
    evened = channel_scale(rows)
    level = levelled(rows / evened)
    peaks = np.quantile(np.abs(level), OUTLIER_QUANTILE, axis=0) if len(level) else evened
    outliers = np.sort(np.argsort(-peaks, kind="stable")[: shapes["memory_outliers"]])
    order = np.arange(len(evened), dtype=np.int32)
    order[outliers] = shapes["memory_group_scale"] * GROUP_CHANNELS + np.arange(len(outliers))
    scale = evened / np.float32(INT4_LIMIT * GROUP_SCALE_LIMIT)
    scale[outliers] = evened[outliers] / np.float32(INT8_LIMIT)
    return {"memory_channel_scale": scale, "memory_channel_order": order}
