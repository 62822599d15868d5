"""Clip where the quantised distribution tells least apart from the true one (Migacz 2017, TensorRT's calibrator).

ONNX Runtime's version of it is not used: it rounds the expanded counts down to integers, which empties sparse tails.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from glimmer_export.calibration.ranges import TensorRange

__all__ = ["EntropyCalibrator", "divergence"]

BINS_A_LEVEL = 8
"""Clipping points are tried in steps of 1/128 of the histogram: finer ones give the same threshold within a percent."""
SMOOTHING = 1e-4


class EntropyCalibrator:
    """The clipping point of least Kullback-Leibler divergence."""

    name = "entropy"

    def amax(self, tensor: TensorRange, levels: int = 127) -> float:
        """Tries clipping points from `levels` bins of magnitude up to the tensor's amax."""
        magnitudes = tensor.magnitudes
        used = int(np.flatnonzero(magnitudes)[-1]) + 1
        if used <= levels:
            return tensor.amax
        tried = [*range(levels, used, BINS_A_LEVEL), used]
        losses = [divergence(magnitudes, bins, levels) for bins in tried]
        # Of equal losses the widest clips least.
        best = len(tried) - 1 - int(np.argmin(losses[::-1]))
        return float(min(tried[best] * tensor.limit / len(magnitudes), tensor.amax))


def divergence(magnitudes: NDArray[np.int64], bins: int, levels: int) -> float:
    """KL divergence of counts clipped to their first `bins` from the same counts in `levels` levels.

    What is clipped joins the last bin of the first distribution alone; a level spreads evenly over its bins that are
    not empty.
    """
    kept = magnitudes[:bins].astype(np.float64)
    true = kept.copy()
    true[-1] += magnitudes[bins:].sum()
    level = np.arange(bins) * levels // bins
    filled = true > 0
    share = np.bincount(level, kept, levels) / np.maximum(np.bincount(level, filled, levels), 1)
    quantised = np.where(filled, share[level], 0.0)
    if not quantised.any():
        return np.inf
    p, q = _smoothed(true), _smoothed(quantised)
    return float((p * np.log(p / q)).sum())


def _smoothed(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities with a little of every filled bin's mass in the empty ones, where a logarithm has no value."""
    empty = counts == 0
    moved = np.where(empty, SMOOTHING, -SMOOTHING * empty.sum() / max(1, len(counts) - int(empty.sum())))
    smooth = np.maximum(counts + moved, SMOOTHING)
    probabilities: NDArray[np.float64] = smooth / smooth.sum()
    return probabilities
