"""What every codec offers, and what those with a scale for each token share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.contract.codec_layout import CodecLayout

__all__ = ["Array", "Codec", "scaled_by_token", "token_scale"]

Array = NDArray[Any]

SMALLEST_SCALE = np.float32(2.0**-126)
"""Below it float32 loses bits, and a runtime that flushes subnormals would read 0."""


class Codec(Protocol):
    """Memory of a passage <-> the tensors of a layout. Immutable, safe from several threads."""

    @property
    def layout(self) -> CodecLayout:
        """The tensors and arrays by name."""
        ...

    @property
    def arrays(self) -> Mapping[str, Array]:
        """What all passages share, as graphs are given it."""
        ...

    def encode(self, memory: Array) -> dict[str, Array]:
        """float32 (tokens, d_model) -> tensors (tokens, ...), and (...) where the layout has one a passage.

        Raises FloatingPointError where the memory is not finite.
        """
        ...

    def decode(self, tensors: Mapping[str, Array]) -> Array:
        """Tensors (..., tokens, ...), one a passage (...), of any leading dimensions -> float32 (..., tokens, d_model).

        The order of its float32 operations is that of the graphs.
        """
        ...


def token_scale(peak: Array) -> Array:
    """The scale of each token, (tokens,) float32, from its peak in units of the scale; 1 where a token is all zero.

    Raises FloatingPointError where a peak is not finite, as it is where any of its token's values is not.
    """
    if not np.isfinite(peak).all():
        raise FloatingPointError("memory is not finite")
    scale: Array = np.where(peak == 0, np.float32(1), np.maximum(peak, SMALLEST_SCALE))
    return scale


def scaled_by_token(values: Array, scale: Array) -> Array:
    """Values (..., tokens, d_model) float32 times the scale (..., tokens) float32 of each token."""
    states: Array = values * scale[..., None]
    return states
