"""Calibrators: from a tensor's range to the largest magnitude that its INT8 code is to hold."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from glimmer_export.calibration.ranges import TensorRange
from glimmer_export.runtime.contract import OptionError

__all__ = [
    "METHODS", "Calibrator", "EntropyCalibrator", "MaxCalibrator", "MseCalibrator", "PercentileCalibrator",
    "bounds", "calibrator", "divergence", "magnitude_percentile",
]  # fmt: skip


class Calibrator(Protocol):
    """Chooses where to clip a tensor. Holds no state: what it needs was collected in the table of ranges."""

    name: str

    def amax(self, tensor: TensorRange, levels: int = 127) -> float:
        """The magnitude that the code `levels` stands for; at most the tensor's own, and 0 for zeros alone."""
        ...


def bounds(tensor: TensorRange, calibrator: Calibrator, levels: int = 127) -> tuple[float, float]:
    """Least and greatest value of an asymmetric code: the tensor's own, each clipped at most to the calibrator's amax.

    Zero may lie outside: whoever needs it as a code widens the bounds.
    """
    amax = calibrator.amax(tensor, levels)
    return max(tensor.minimum, -amax), min(tensor.maximum, amax)


class MaxCalibrator:
    """The largest magnitude that was seen."""

    name = "max"

    def amax(self, tensor: TensorRange, levels: int = 127) -> float:  # noqa: ARG002 - the contract's
        """The tensor's own amax."""
        return tensor.amax


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


BINS_A_LEVEL = 8
"""Clipping points are tried in steps of 1/128 of the histogram: finer ones give the same threshold within a percent."""
SMOOTHING = 1e-4


class EntropyCalibrator:
    """The clipping point of least Kullback-Leibler divergence (Migacz 2017, TensorRT's calibrator).

    ONNX Runtime's own is not used: it rounds the expanded counts down to integers, which empties sparse tails.
    """

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
    """Probabilities with a little of every filled bin's mass in the empty ones, if a logarithm has no value."""
    empty = counts == 0
    moved = np.where(empty, SMOOTHING, -SMOOTHING * empty.sum() / max(1, len(counts) - int(empty.sum())))
    smooth = np.maximum(counts + moved, SMOOTHING)
    probabilities: NDArray[np.float64] = smooth / smooth.sum()
    return probabilities


POINTS_A_BIN = 4
"""Values are taken to lie evenly in a bin, at this many points."""
CANDIDATES = 2.0 ** (-np.arange(97) / 16)
"""Clipping points as shares of the amax, widest first: down to 1/64 of it, 4% apart."""


class MseCalibrator:
    """The clipping point of least mean squared error of the symmetric code."""

    name = "mse"

    def amax(self, tensor: TensorRange, levels: int = 127) -> float:
        """Tries 97 clipping points against the histogram of magnitudes."""
        magnitudes = tensor.magnitudes
        filled = np.flatnonzero(magnitudes)
        offsets = (np.arange(POINTS_A_BIN) + 0.5) / POINTS_A_BIN
        width = tensor.limit / len(magnitudes)
        points = np.minimum(((filled[:, None] + offsets) * width).reshape(-1), tensor.amax)
        counts = np.repeat(magnitudes[filled], POINTS_A_BIN)
        losses = []
        for candidate in CANDIDATES * tensor.amax:
            step = candidate / levels if candidate else 1.0
            error = points - np.minimum(np.rint(points / step), levels) * step
            losses.append(float(counts @ (error * error)))
        return float(CANDIDATES[int(np.argmin(losses))] * tensor.amax)


CALIBRATORS: tuple[Calibrator, ...] = (MaxCalibrator(), PercentileCalibrator(), EntropyCalibrator(), MseCalibrator())
METHODS = tuple(method.name for method in CALIBRATORS)
"""Names of the calibrators."""


def calibrator(name: str) -> Calibrator:
    """The calibrator of a name; raises OptionError if there is none."""
    for method in CALIBRATORS:
        if method.name == name:
            return method
    raise OptionError("--method", expected=f"one of {', '.join(METHODS)}", found=name, fix="choose one of them")
