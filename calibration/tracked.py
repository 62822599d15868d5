"""Ranges that follow the exact rewrites of a graph: what a tensor holds after a pass has multiplied its channels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from glimmer_export.calibration.ranges import TensorRange
from glimmer_export.runtime.contract import CalibrationError

__all__ = ["TrackedRanges"]

Factor = float | NDArray[np.float64]


class TrackedRanges:
    """The ranges of one graph's values by name; a pass that scales a value says so with `multiply`.

    Every factor is positive: a scalar, or one a channel (channels,) of the value's last axis.
    """

    def __init__(self, ranges: Mapping[str, TensorRange]) -> None:
        self._ranges = dict(ranges)
        self._factors: dict[str, Factor] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._ranges

    def define(self, name: str, low: float, high: float) -> None:
        """Give a range to a value that a rewrite has added."""
        empty = np.zeros(2, np.int64)
        self._ranges[name] = TensorRange(low, high, 0, max(abs(low), abs(high)), empty, None)
        self._factors.pop(name, None)

    def copy(self, name: str, new: str) -> None:
        """Give a value that a rewrite has added the range that `name` has now."""
        self._ranges[new] = self._ranges[name]
        self._factors.pop(new, None)
        self.multiply(new, self.factor(name))

    def source(self, name: str) -> TensorRange:
        """What the FP32 graph's tensor held, before any rewrite; raises CalibrationError if it was never seen."""
        if name not in self._ranges:
            raise CalibrationError(
                f"tensor {name}", expected="a range in the calibration table", found="none",
                fix="calibrate the bundle again, with questions that reach every graph",
            )
        return self._ranges[name]

    def factor(self, name: str) -> Factor:
        """What the value has been multiplied by since: a scalar, or one number a channel."""
        return self._factors.get(name, 1.0)

    def multiply(self, name: str, factor: Factor) -> None:
        """Note that a rewrite multiplies the value `name`; a value without a range is left aside."""
        if name in self._ranges:
            self._factors[name] = self._factors.get(name, 1.0) * np.asarray(factor, np.float64)

    def channel_amax(self, name: str) -> NDArray[np.float64] | None:
        """Largest magnitude of each channel now, (channels,); None if the last axis varies in size."""
        amax = self.source(name).channel_amax
        return None if amax is None else amax.astype(np.float64) * self.factor(name)

    def amax(self, name: str) -> float:
        """Largest magnitude now; an upper bound where channels without numbers of their own were scaled."""
        by_channel = self.channel_amax(name)
        if by_channel is not None:
            return float(by_channel.max(initial=0.0))
        return self.source(name).amax * float(np.max(self.factor(name)))
