"""Clip a fixed share of the values."""

from __future__ import annotations

import numpy as np

from glimmer_export.calibration.ranges import TensorRange

__all__ = ["PercentileCalibrator", "magnitude_percentile"]


def magnitude_percentile(tensor: TensorRange, percent: float) -> float:
    """The magnitude that `percent` of the counted values do not exceed: a bin's outer edge, at most the amax."""
    magnitudes = tensor.magnitudes
    reached = np.cumsum(magnitudes) >= percent / 100 * tensor.count
    edge = (int(reached.argmax()) + 1) * tensor.limit / len(magnitudes)
    return min(edge, tensor.amax)


class PercentileCalibrator:
    """A percentile of the magnitudes: 99.99, as NVIDIA's tools have it ("Integer Quantization...", Wu et al. 2020)."""

    name = "percentile"

    def __init__(self, percent: float = 99.99) -> None:
        self.percent = percent

    def amax(self, tensor: TensorRange, levels: int = 127) -> float:  # noqa: ARG002 - the contract's
        """The percentile, to the width of a bin."""
        return magnitude_percentile(tensor, self.percent)
