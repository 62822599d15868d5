"""The table of ranges: what every tensor of a bundle's FP32 graphs was seen to hold, by graph and value name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["GraphRanges", "RangeTable", "TensorRange"]


@dataclass(frozen=True)
class TensorRange:
    """One float tensor over all samples, without padding and without what hides positions from attention.

    `minimum` and `maximum` are exact. `histogram` (bins,) int64 counts `count` values over [-limit, limit], `limit` a
    power of two; of a large tensor each run adds a part, in even steps over its rows. `channel_amax` (channels,)
    float32 is the largest magnitude of each index of the last axis, None if that axis varies in size.
    """

    minimum: float
    maximum: float
    count: int
    limit: float
    histogram: NDArray[np.int64]
    channel_amax: NDArray[np.float32] | None

    @property
    def amax(self) -> float:
        """Largest magnitude."""
        return max(abs(self.minimum), abs(self.maximum))

    @property
    def magnitudes(self) -> NDArray[np.int64]:
        """The histogram of magnitudes: (bins / 2,) int64 over [0, limit]."""
        half = len(self.histogram) // 2
        counts: NDArray[np.int64] = self.histogram[half:] + self.histogram[half - 1 :: -1]
        return counts


GraphRanges = dict[str, TensorRange]
"""The float tensors of one graph, by value name: inputs, what nodes write, outputs."""


@dataclass(frozen=True)
class RangeTable:
    """Ranges of a bundle's graphs.

    `method` is the calibrator that `quantize` computes amax with unless told otherwise; `samples` the questions that
    were run; `graph_digests` the SHA-256 of each graph's model file, which binds the table to it; `warnings` what the
    samples did not cover.
    """

    method: str
    samples: int
    graph_digests: dict[str, str]
    graphs: dict[str, GraphRanges]
    warnings: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """For a report: by graph and tensor, what is not an array."""
        return {
            graph: {
                name: {"minimum": tensor.minimum, "maximum": tensor.maximum, "amax": tensor.amax, "count": tensor.count}
                for name, tensor in tensors.items()
            }
            for graph, tensors in self.graphs.items()
        }
