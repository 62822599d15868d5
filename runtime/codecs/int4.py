"""The int4 codec: half a byte a value, scales by groups of channels, and the worst channels kept in a byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from glimmer_export.runtime.codecs.contract import (
    CODE_ZERO,
    Array,
    CodecArrayError,
    CodecFormat,
    CodecLayout,
    CodecTensor,
    scaled_by_token,
    token_scale,
)
from glimmer_export.runtime.codecs.int8 import INT8_LIMIT

__all__ = ["CODECS", "GROUP_CHANNELS", "GROUP_SCALE_LIMIT", "INT4_LIMIT", "Int4Codec"]

GROUP_CHANNELS = 64
"""Channels of one scale."""
CHANNELS_PER_OUTLIER = 32
"""One channel of so many is kept in eight bits."""
INT4_LIMIT = 7.5
"""What stands for 0 in a nibble: its sixteen levels lie at -7.5 to 7.5, none of them wasted."""
GROUP_SCALE_LIMIT = 255
TIGHTER = (0.9, 0.8, 0.7)
"""Fractions of a group's scale that are tried besides: where its largest value is clipped, the rest gains by it."""


def _layout(d_model: int) -> CodecLayout:
    groups = -(-d_model // GROUP_CHANNELS)
    codes = CodecTensor("memory", "uint8", (groups * GROUP_CHANNELS // 2,))
    outliers = CodecTensor("memory_outliers", "uint8", (max(1, d_model // CHANNELS_PER_OUTLIER),))
    group_scale = CodecTensor("memory_group_scale", "uint8", (groups,))
    scale = CodecTensor("memory_scale", "float32", ())
    channel_scale = CodecTensor("memory_channel_scale", "float32", (d_model,))
    order = CodecTensor("memory_channel_order", "int32", (d_model,))
    return CodecLayout("int4", (codes, outliers, group_scale, scale), arrays=(channel_scale, order))


@dataclass(frozen=True)
class Int4Codec:
    """`memory = (integers * channel_scale) * token_scale`.

    The integer of a channel c lies at place channel_order[c] of those of all places: first (nibble - 7.5) * group_scale
    for every place of the groups, then the outliers' codes less 128. Byte j holds place j in its low nibble, and place
    j + half in its high one.
    """

    layout: CodecLayout
    arrays: Mapping[str, Array]

    def __post_init__(self) -> None:
        order, places = self.arrays["memory_channel_order"], self.num_groups * GROUP_CHANNELS + self.num_outliers
        different = len(np.unique(order))
        if order.min() < 0 or order.max() >= places or different != len(order):
            raise CodecArrayError(
                "memory_channel_order", expected=f"{len(order)} different places below {places}",
                found=f"{different} different ones, {order.min()} to {order.max()}",
            )

    @property
    def num_groups(self) -> int:
        """Groups of `GROUP_CHANNELS` places."""
        return next(tensor.shape[0] for tensor in self.layout.per_token if tensor.name == "memory_group_scale")

    @property
    def num_outliers(self) -> int:
        """Channels that are kept in eight bits."""
        return next(tensor.shape[0] for tensor in self.layout.per_token if tensor.name == "memory_outliers")

    def encode(self, memory: Array) -> dict[str, Array]:
        """As `Codec.encode`: of the scales tried for a group, the one of the least squared error."""
        with np.errstate(over="ignore"):  # becomes the error of an infinite peak
            evened = memory / self.arrays["memory_channel_scale"]
        grouped, outliers = self._places(evened)
        peaks = np.abs(grouped).max(-1) / np.float32(INT4_LIMIT)
        of_groups = peaks.max(-1) / np.float32(GROUP_SCALE_LIMIT)
        scale = token_scale(np.maximum(of_groups, np.abs(outliers).max(-1) / np.float32(INT8_LIMIT)))
        group_scale, nibbles = self._best(grouped / scale[:, None, None], peaks / scale[:, None])
        packed = nibbles.reshape(len(memory), -1)
        half = packed.shape[1] // 2
        codes = np.rint(outliers / scale[:, None]).clip(-INT8_LIMIT, INT8_LIMIT) + CODE_ZERO
        return {
            "memory": packed[:, :half] | packed[:, half:] << 4,
            "memory_outliers": codes.astype(np.uint8),
            "memory_group_scale": group_scale,
            "memory_scale": scale,
        }

    def decode(self, tensors: Mapping[str, Array]) -> Array:
        """As `Codec.decode`. The integers are exact, so that the order in which they come about does not matter."""
        packed = tensors["memory"].astype(np.float32)
        high = np.floor(packed / 16)
        nibbles = np.concatenate([packed - 16 * high, high], -1) - np.float32(INT4_LIMIT)
        grouped = nibbles.reshape(*packed.shape[:-1], self.num_groups, GROUP_CHANNELS)
        grouped = grouped * tensors["memory_group_scale"].astype(np.float32)[..., None]
        outliers = tensors["memory_outliers"].astype(np.float32) - CODE_ZERO
        places = np.concatenate([grouped.reshape(nibbles.shape), outliers], -1)
        integers = places.take(self.arrays["memory_channel_order"], -1)
        return scaled_by_token(integers * self.arrays["memory_channel_scale"], tensors["memory_scale"])

    def _best(self, grouped: Array, peaks: Array) -> tuple[Array, Array]:
        """Scales (tokens, groups) and nibbles (tokens, groups, GROUP_CHANNELS), uint8, of values in units of the token.

        `peaks` are the scales at which nothing is clipped. An error counts by its channel's scale.
        """
        weight = np.square(self._places(self.arrays["memory_channel_scale"][None])[0])
        whole = np.ceil(peaks).clip(0, GROUP_SCALE_LIMIT)
        best = np.full(peaks.shape, np.inf, np.float32)
        scales, nibbles = np.empty(peaks.shape, np.uint8), np.empty(grouped.shape, np.uint8)
        for fraction in (1, *TIGHTER):
            tried = np.maximum(np.rint(whole * np.float32(fraction)), np.minimum(whole, 1))
            step = np.maximum(tried, 1)[:, :, None]
            levels = np.floor(grouped / step).clip(-8, 7) + np.float32(0.5)
            error = (np.square(levels * step - grouped) * weight).sum(-1)
            better = error < best
            best[better], scales[better] = error[better], tried[better].astype(np.uint8)
            nibbles[better] = (levels[better] + np.float32(INT4_LIMIT)).astype(np.uint8)
        return scales, nibbles

    def _places(self, evened: Array) -> tuple[Array, Array]:
        """Values (tokens, d_model) in their places (tokens, groups, GROUP_CHANNELS) and (tokens, outliers), else 0."""
        num_grouped = self.num_groups * GROUP_CHANNELS
        places = np.zeros((len(evened), num_grouped + self.num_outliers), np.float32)
        places[:, self.arrays["memory_channel_order"]] = evened
        return places[:, :num_grouped].reshape(len(evened), -1, GROUP_CHANNELS), places[:, num_grouped:]


CODECS = (CodecFormat("int4", _layout, Int4Codec),)
