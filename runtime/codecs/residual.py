"""Residual quantisation with a gain a token: a product whose sums of centroids are searched together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from glimmer_export.runtime.codecs.contract import Array, CodecFormat, CodecLayout, CodecTensor
from glimmer_export.runtime.codecs.product import Search, product_layout, sums_of_centroids

__all__ = ["CODECS", "GAINS", "ResidualCodec", "gain_codes", "nearest_sums", "sums_kept"]

STEPS_PER_OCTAVE = 12
CODE_OF_ONE = 112
GAINS = np.concatenate([np.zeros(1), 2.0 ** ((np.arange(1, 256) - CODE_OF_ONE) / STEPS_PER_OCTAVE)]).astype(np.float32)
"""What a gain's code stands for, (256,) float32: 0, then 2**-9.25 to 2**11.9, each 6% above the one before.

Times the parts of a token, each at most its length of 1 or little more, the largest is in FP16's range.
"""
BLOCK_TOKENS = 256
"""Tokens that are searched at a time: their distances stay in a core's cache."""


def sums_kept(share: int) -> int:
    """Sums that a search keeps from stage to stage where a byte stands for `share` channels.

    Twice as many where there are half the groups: the search takes as long.
    """
    return 8 if share > 4 else 4


def _layout(name: str, share: int, d_model: int) -> CodecLayout:
    product = product_layout(name, share, d_model)
    return CodecLayout(name, (*product.per_token, CodecTensor("memory_gain", "uint8", ())), arrays=product.arrays)


@dataclass(frozen=True)
class ResidualCodec:
    """`memory = (sum over stages of codebook[stage, group, code]) * GAINS[gain] * scale`, the groups side by side.

    Codes lie as those of a product do. The gain is a token's length in units of the store's scale, so that the
    codebook is of tokens of length 1: one that is a thousand times the others is as near as they are. `search` finds
    codes instead of `nearest_sums`, on another device, None for that.
    """

    layout: CodecLayout
    arrays: Mapping[str, Array]
    search: Search | None = field(default=None, compare=False)

    def encode(self, memory: Array) -> dict[str, Array]:
        """As `Codec.encode`; a token longer or shorter than all gains gets the nearest of them."""
        gains, rows = self.evened(memory)
        search = self.search or partial(nearest_sums, codebook=self.arrays["memory_codebook"], kept=self.kept)
        return {"memory": search(rows), "memory_gain": gains}

    def evened(self, memory: Array) -> tuple[Array, Array]:
        """Memory (tokens, d_model) float32 -> codes of gains (tokens,) uint8, and the tokens divided by these gains.

        Raises FloatingPointError where the memory is not finite.
        """
        with np.errstate(over="ignore"):  # becomes the error of an infinite peak
            scaled = memory / self.arrays["memory_scale"]
        gains = gain_codes(scaled)
        return gains, scaled / np.where(gains == 0, np.float32(1), GAINS[gains])[:, None]

    @property
    def kept(self) -> int:
        """Sums that a search keeps from stage to stage."""
        (codes,) = (tensor.shape[0] for tensor in self.layout.per_token if tensor.name == "memory")
        _, groups, _, width = self.arrays["memory_codebook"].shape
        return sums_kept(groups * width // codes)

    def decode(self, tensors: Mapping[str, Array]) -> Array:
        """As `Codec.decode`: the stages are added in their order, then come the gain and the scale."""
        values = sums_of_centroids(tensors["memory"], self.arrays["memory_codebook"])
        states: Array = values * GAINS[tensors["memory_gain"]][..., None] * self.arrays["memory_scale"]
        return states


def gain_codes(scaled: Array) -> Array:
    """The codes of the gains nearest to the lengths of tokens (tokens, d_model) float32: (tokens,) uint8.

    0 for a token of zeros alone. Raises FloatingPointError where a token is not finite.
    """
    peak = np.abs(scaled).max(-1)
    if not np.isfinite(peak).all():
        raise FloatingPointError("memory is not finite")
    some = np.where(peak == 0, np.float32(1), peak)
    length = some.astype(np.float64) * np.sqrt(np.square(scaled / some[:, None], dtype=np.float64).sum(-1))
    # A token of zeros has a logarithm of -inf here, whose code is 0 below.
    with np.errstate(divide="ignore"):
        codes = np.rint(np.log2(length) * STEPS_PER_OCTAVE) + CODE_OF_ONE
    codes = np.where(peak == 0, 0, codes.clip(1, len(GAINS) - 1))
    return codes.astype(np.uint8)


def nearest_sums(rows: Array, codebook: Array, kept: int) -> Array:
    """Codes (n, stages * groups) uint8 whose sums of centroids are near rows (n, groups * width) float32.

    `codebook` is (stages, groups, centroids, width) float32. At each stage the `kept` nearest of all sums that go on
    from those kept before are kept; at the last the nearest is the answer (a beam search).
    """
    stages, groups, _, width = codebook.shape
    codes = np.empty((len(rows), stages, groups), np.uint8)
    for first in range(0, len(rows), BLOCK_TOKENS):
        block = rows[first : first + BLOCK_TOKENS]
        for group in range(groups):
            part = block[:, group * width : (group + 1) * width]
            codes[first : first + len(block), :, group] = _nearest_of_group(part, codebook[:, group], kept)
    return codes.reshape(len(rows), stages * groups)


def _nearest_of_group(rows: Array, codebook: Array, kept: int) -> Array:
    """Rows (n, width) and codebook (stages, centroids, width) -> codes (n, stages) uint8."""
    stages, centroids, width = codebook.shape
    each = np.arange(len(rows))[:, None]
    # Of each sum kept, (n, sums): what it leaves of the row, its squared distance less the row's square, its codes.
    left, cost = rows[:, None], np.zeros((len(rows), 1), np.float32)
    codes = np.zeros((len(rows), 1, stages), np.uint8)
    for stage, centroid in enumerate(codebook):
        further = left.reshape(-1, width) @ (-2 * centroid.T)
        further += np.square(centroid).sum(-1)
        distance = further.reshape(*cost.shape, centroids) + cost[..., None]
        cost, places = _least(distance.reshape(len(rows), -1), kept if stage < stages - 1 else 1)
        before, chosen = places // centroids, places % centroids
        codes = codes[each, before]
        codes[..., stage] = chosen
        left = left[each, before] - centroid[chosen]
    return codes[:, 0]


def _least(values: Array, count: int) -> tuple[Array, Array]:
    """The `count` least of each row of values (n, m), which are overwritten, and their places: (n, count), rising."""
    row = np.arange(len(values))
    least = np.empty((len(values), count), values.dtype)
    places = np.empty((len(values), count), np.int64)
    for number in range(count):
        places[:, number] = values.argmin(-1)
        least[:, number] = values[row, places[:, number]]
        values[row, places[:, number]] = np.inf
    return least, places


CODECS = tuple(
    CodecFormat(name, partial(_layout, name, share), ResidualCodec)
    for name, share in (("rq4x", 2), ("rq8x", 4), ("rq16x", 8))
)
"""`rq8x` is, but for one byte a token, 8 times smaller than fp16."""
