"""Product quantisation: of each group of channels, bytes that name learnt values whose sum stands for the group's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from glimmer_export.runtime.codecs.contract import Array, CodecFormat, CodecLayout, CodecTensor

__all__ = ["CODECS", "ProductCodec", "Search", "nearest", "product_layout", "sums_of_centroids"]

CENTROIDS = 256
STAGES = 8
"""Centroids, each in a codebook of its own, whose sum stands for a group of channels."""

Search = Callable[[Array], Array]
"""Rows (n, d_model) float32 -> codes (n, stages * groups) uint8."""


def product_layout(name: str, share: int, d_model: int) -> CodecLayout:
    """The layout at a width where a byte stands for `share` channels; raises ValueError for no multiple of that.

    A group is as wide as divides the width, up to STAGES times `share` channels; each stage codes it once.
    """
    if d_model % share:
        raise ValueError(f"{name} has a byte for {share} channels, and {d_model} is not a multiple of that")
    stages = next(stages for stages in range(STAGES, 0, -1) if d_model % (stages * share) == 0)
    width = stages * share
    groups = d_model // width
    codes = CodecTensor("memory", "uint8", (stages * groups,))
    codebook = CodecTensor("memory_codebook", "float32", (stages, groups, CENTROIDS, width))
    return CodecLayout(name, (codes,), arrays=(CodecTensor("memory_scale", "float32", (1,)), codebook))


@dataclass(frozen=True)
class ProductCodec:
    """`memory = (sum over stages of codebook[stage, group, code]) * scale`, the groups side by side.

    Code `stage * groups + group` of a token says what the stage adds to that group. The scale is one for the store.
    `search` finds the codes of what was divided by the scale, on another device; None for here.
    """

    layout: CodecLayout
    arrays: Mapping[str, Array]
    search: Search | None = field(default=None, compare=False)
    kept = 1

    def encode(self, memory: Array) -> dict[str, Array]:
        """As `Codec.encode`: at each stage the centroid nearest to what the earlier ones have left."""
        if not np.isfinite(memory).all():
            raise FloatingPointError("memory is not finite")
        rest = memory / self.arrays["memory_scale"]
        return {"memory": self._nearest(rest) if self.search is None else self.search(rest)}

    def decode(self, tensors: Mapping[str, Array]) -> Array:
        """As `Codec.decode`: the stages are added in their order."""
        values = sums_of_centroids(tensors["memory"], self.arrays["memory_codebook"])
        states: Array = values * self.arrays["memory_scale"]
        return states

    def _nearest(self, rest: Array) -> Array:
        codebook = self.arrays["memory_codebook"]
        stages, groups, _, width = codebook.shape
        codes = np.empty((len(rest), stages, groups), np.uint8)
        for group in range(groups):
            left = rest[:, group * width : (group + 1) * width]
            for stage in range(stages):
                chosen = nearest(left, codebook[stage, group])
                codes[:, stage, group] = chosen
                left = left - codebook[stage, group, chosen]
        return codes.reshape(len(rest), -1)


CODECS = tuple(
    CodecFormat(name, partial(product_layout, name, share), ProductCodec) for name, share in (("pq8x", 4), ("pq16x", 8))
)
"""`pq8x` is 8 times smaller than fp16."""


def nearest(rows: Array, centroids: Array) -> Array:
    """Which of centroids (c, width) is nearest to each of rows (n, width), the first where several are: (n,) int64."""
    # The squared distance, less the row's own square, which is the same for every centroid.
    chosen: Array = (np.square(centroids).sum(-1) - 2 * (rows @ centroids.T)).argmin(-1)
    return chosen


def sums_of_centroids(codes: Array, codebook: Array) -> Array:
    """Codes (..., stages * groups) uint8 and codebook (stages, groups, centroids, width) -> (..., groups * width).

    The stages are added in their order.
    """
    stages, groups, centroids, width = codebook.shape
    leading = codes.shape[:-1]
    places = codes.astype(np.int32).reshape(*leading, stages, groups)
    table, first = codebook.reshape(-1, width), np.arange(groups, dtype=np.int32) * centroids
    values = table.take(places[..., 0, :] + first, 0)
    for stage in range(1, stages):
        values = values + table.take(places[..., stage, :] + first + stage * groups * centroids, 0)
    sums: Array = values.reshape(*leading, groups * width)
    return sums
