"""The int4 codec: half a byte a value, scales by groups of channels, and the worst channels kept in a byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from runtime.codecs.contract import Array, scaled_by_token, token_scale
from runtime.codecs.int8 import INT8_LIMIT
from runtime.contract.codec_layout import CODE_ZERO, GROUP_CHANNELS, CodecLayout

__all__ = ["INT4_LIMIT", "Int4Codec"]

INT4_LIMIT, INT4_ZERO = 7, 8
GROUP_SCALE_LIMIT = 255


@dataclass(frozen=True)
class Int4Codec:
    """`memory = (integers * channel_scale) * token_scale`.

    The integer of a channel c lies at place channel_order[c] of those of all places: first (nibble - 8) * group_scale
    for every place of the groups, then the outliers' codes less 128. Byte j holds place j in its low nibble, and place
    j + half in its high one.
    """

    layout: CodecLayout
    arrays: Mapping[str, Array]

    @property
    def num_groups(self) -> int:
        """Groups of `GROUP_CHANNELS` places."""
        return next(tensor.shape[0] for tensor in self.layout.per_token if tensor.name == "memory_group_scale")

    def encode(self, memory: Array) -> dict[str, Array]:
        """As `Codec.encode`: no value is further from what is decoded than half a step of its group and token."""
        with np.errstate(over="ignore"):  # becomes the error of an infinite peak
            evened = memory / self.arrays["memory_channel_scale"]
        grouped, outliers = self._places(evened)
        peaks = np.abs(grouped).max(-1) / np.float32(INT4_LIMIT)
        of_groups = peaks.max(-1) / np.float32(GROUP_SCALE_LIMIT)
        scale = token_scale(np.maximum(of_groups, np.abs(outliers).max(-1) / np.float32(INT8_LIMIT)))
        group_scale = np.ceil(peaks / scale[:, None]).clip(1, GROUP_SCALE_LIMIT)
        steps = grouped / (group_scale * scale[:, None])[:, :, None]
        nibbles = (np.rint(steps).clip(-INT4_LIMIT, INT4_LIMIT) + INT4_ZERO).astype(np.uint8).reshape(len(memory), -1)
        half = nibbles.shape[1] // 2
        return {
            "memory": nibbles[:, :half] | nibbles[:, half:] << 4,
            "memory_outliers": (
                np.rint(outliers / scale[:, None]).clip(-INT8_LIMIT, INT8_LIMIT) + CODE_ZERO
            ).astype(np.uint8),
            "memory_group_scale": group_scale.astype(np.uint8),
            "memory_scale": scale,
        }

    def decode(self, tensors: Mapping[str, Array]) -> Array:
        """As `Codec.decode`. The integers are exact, so that the order in which they come about does not matter."""
        packed = tensors["memory"].astype(np.float32)
        high = np.floor(packed / 16)
        nibbles = np.concatenate([packed - 16 * high, high], -1) - INT4_ZERO
        grouped = nibbles.reshape(*packed.shape[:-1], self.num_groups, GROUP_CHANNELS)
        grouped = grouped * tensors["memory_group_scale"].astype(np.float32)[..., None]
        outliers = tensors["memory_outliers"].astype(np.float32) - CODE_ZERO
        places = np.concatenate([grouped.reshape(nibbles.shape), outliers], -1)
        integers = places.take(self.arrays["memory_channel_order"], -1)
        return scaled_by_token(integers * self.arrays["memory_channel_scale"], tensors["memory_scale"])

    def _places(self, evened: Array) -> tuple[Array, Array]:
        """Values (tokens, d_model) in their places (tokens, groups, GROUP_CHANNELS) and (tokens, outliers), else 0."""
        num_grouped = self.num_groups * GROUP_CHANNELS
        num_outliers = next(t.shape[0] for t in self.layout.per_token if t.name == "memory_outliers")
        places = np.zeros((len(evened), num_grouped + num_outliers), np.float32)
        places[:, self.arrays["memory_channel_order"]] = evened
        return places[:, :num_grouped].reshape(len(evened), -1, GROUP_CHANNELS), places[:, num_grouped:]
