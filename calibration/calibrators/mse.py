"""Clip where the expected squared error of rounding and clipping together is least."""

from __future__ import annotations

import numpy as np

from glimmer_export.calibration.ranges import TensorRange

__all__ = ["MseCalibrator"]

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
