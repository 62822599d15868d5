"""Product quantisation: one byte names one of 256 learnt values of a few channels together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from runtime.codecs.contract import Array, scaled_by_token, token_scale
from runtime.contract.codec_layout import CodecLayout

__all__ = ["ProductCodec", "evened_rows"]


@dataclass(frozen=True)
class ProductCodec:
    """`memory = (codebook[part, code] * channel_scale) * token_scale`, the parts side by side.

    The token scale is the root mean square of what the codebook is to stand for.
    """

    layout: CodecLayout
    arrays: Mapping[str, Array]

    def encode(self, memory: Array) -> dict[str, Array]:
        """As `Codec.encode`: of each part the code whose centroid is nearest."""
        evened, scale = evened_rows(memory, self.arrays["memory_channel_scale"])
        codebook = self.arrays["memory_codebook"]
        parts, _, width = codebook.shape
        codes = np.empty((len(memory), parts), np.uint8)
        for part in range(parts):
            centroids = codebook[part]
            # The squared distance, less the part's own square, which is the same for every centroid.
            distance = np.square(centroids).sum(-1) - 2 * (evened[:, part * width : (part + 1) * width] @ centroids.T)
            codes[:, part] = distance.argmin(-1)
        return {"memory": codes, "memory_scale": scale}

    def decode(self, tensors: Mapping[str, Array]) -> Array:
        """As `Codec.decode`."""
        codes, codebook = tensors["memory"], self.arrays["memory_codebook"]
        parts, centroids, width = codebook.shape
        rows = codebook.reshape(-1, width).take(codes.astype(np.int32) + np.arange(parts) * centroids, 0)
        values = rows.reshape(*codes.shape[:-1], parts * width) * self.arrays["memory_channel_scale"]
        return scaled_by_token(values, tensors["memory_scale"])


def evened_rows(memory: Array, channel_scale: Array) -> tuple[Array, Array]:
    """What the codebook stands for: memory (tokens, d_model) without the scales of channel and token; and the latter.

    Raises FloatingPointError where the memory is not finite.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # become the error of a scale that is not finite
        evened = memory / channel_scale
        peak = np.abs(evened).max(-1)
        mean = np.sqrt(np.square(evened / np.where(peak == 0, 1, peak)[:, None]).mean(-1)) * peak
    scale = token_scale(mean.astype(np.float32))
    return evened / scale[:, None], scale
