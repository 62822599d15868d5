"""What a codec's arrays are, from a sample of a corpus's own memory. The same sample gives the same bytes."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from glimmer_export.exporter.memory.fit_product import fit_codebook
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.codecs.int4 import GROUP_SCALE_LIMIT, INT4_LIMIT
from glimmer_export.runtime.codecs.int8 import INT8_LIMIT
from glimmer_export.runtime.contract import CodecLayout, codec_layout
from glimmer_export.runtime.contract.codec_layout import GROUP_CHANNELS

__all__ = ["SAMPLE_TOKENS", "fit_codec"]

SAMPLE_TOKENS = 32_768
"""Tokens that a codec is fitted to, at most: 128 for each of a codebook's centroids."""
EVENING = 0.75
"""How far channels are evened out: their scale is this power of their root mean square over tokens of equal norm.

At 1, a step of each channel is in proportion to its values, and at 0 the same for all: the error of the whole is least
in between.
"""
LEAST_CHANNEL_SCALE = 2.0**-6
"""Of the largest: a channel that is 0 in the sample may not be so elsewhere."""
OUTLIER_QUANTILE = 0.999


def fit_codec(name: str, d_model: int, sample: Iterable[Array]) -> dict[str, Array]:
    """The arrays of a codec, fitted to memories (tokens, d_model) float32, by name; empty for a codec without any.

    Memory that is not finite is left out. Raises MissingExtraError where fitting needs a package that is not installed,
    ValueError for an unknown codec or one that does not fit the width.
    """
    layout = codec_layout(name, d_model)
    names = [array.name for array in layout.arrays]
    if not names:
        return {}
    rows = sample_rows(d_model, sample)
    if "memory_codebook" in names:
        return _product(layout, rows)
    evened = channel_scale(rows)
    if "memory_channel_order" in names:
        return _int4(layout, rows, evened)
    return {"memory_channel_scale": evened / np.float32(INT8_LIMIT)}


def sample_rows(d_model: int, sample: Iterable[Array]) -> Array:
    """At most SAMPLE_TOKENS of the finite rows of all memories, each as likely as any other, in the order they came.

    Even steps, as passages are chosen by, would meet the same places in passages of equal length.
    """
    random = np.random.default_rng(0)
    rows, keys, count = [np.empty((0, d_model), np.float32)], [np.empty(0)], 0
    for memory in sample:
        finite = memory[np.isfinite(memory).all(-1)]
        rows.append(finite)
        # Those whose keys are least are the sample: no row needs to be looked at again.
        keys.append(random.random(len(finite)))
        count += len(finite)
        if count > 2 * SAMPLE_TOKENS:
            rows, keys = _least(rows, keys)
            count = SAMPLE_TOKENS
    return _least(rows, keys)[0][0]


def channel_scale(rows: Array) -> Array:
    """How large the channels are beside each other, (d_model,) float32, the largest 1; all 1 where all rows are 0."""
    level = _levelled(rows)
    size = np.sqrt(np.square(level, dtype=np.float64).mean(0)) ** EVENING if len(level) else np.zeros(rows.shape[1])
    peak = size.max()
    if peak == 0:
        return np.ones(rows.shape[1], np.float32)
    scale: Array = np.maximum(size / peak, LEAST_CHANNEL_SCALE).astype(np.float32)
    return scale


def _least(rows: list[Array], keys: list[Array]) -> tuple[list[Array], list[Array]]:
    all_rows, all_keys = np.concatenate(rows), np.concatenate(keys)
    chosen = np.sort(np.argsort(all_keys, kind="stable")[:SAMPLE_TOKENS])
    return [all_rows[chosen]], [all_keys[chosen]]


def _levelled(rows: Array) -> Array:
    """Rows that are not 0, each divided by its largest value and then its norm: none outweighs another in the fit."""
    peaks = np.abs(rows).max(-1, initial=0)
    level = rows[peaks > 0] / peaks[peaks > 0, None]
    levelled: Array = level / np.sqrt(np.square(level).mean(-1, keepdims=True))
    return levelled


def _int4(layout: CodecLayout, rows: Array, evened: Array) -> dict[str, Array]:
    """The channels kept in eight bits are those whose largest values stand out most when all are evened."""
    shapes = {tensor.name: tensor.shape[0] for tensor in layout.per_token if tensor.shape}
    level = _levelled(rows / evened)
    peaks = np.quantile(np.abs(level), OUTLIER_QUANTILE, axis=0) if len(level) else evened
    outliers = np.sort(np.argsort(-peaks, kind="stable")[: shapes["memory_outliers"]])
    order = np.arange(len(evened), dtype=np.int32)
    order[outliers] = shapes["memory_group_scale"] * GROUP_CHANNELS + np.arange(len(outliers))
    scale = evened / np.float32(INT4_LIMIT * GROUP_SCALE_LIMIT)
    scale[outliers] = evened[outliers] / np.float32(INT8_LIMIT)
    return {"memory_channel_scale": scale, "memory_channel_order": order}


def _product(layout: CodecLayout, rows: Array) -> dict[str, Array]:
    """A scale that brings the sample's largest value between 1/2 and 1, and the codebook of what is left."""
    shape = next(array.shape for array in layout.arrays if array.name == "memory_codebook")
    peak = float(np.abs(rows).max(initial=0))
    exponent = 0 if peak == 0 else int(np.frexp(peak)[1])
    scale = np.array([2.0 ** min(max(exponent, -126), 126)], np.float32)
    return {"memory_scale": scale, "memory_codebook": fit_codebook(rows / scale, shape)}
