"""Clip nothing."""

from __future__ import annotations

from glimmer_export.calibration.ranges import TensorRange

__all__ = ["MaxCalibrator"]


class MaxCalibrator:
    """The largest magnitude that was seen."""

    name = "max"

    def amax(self, tensor: TensorRange, levels: int = 127) -> float:  # noqa: ARG002 - the contract's
        """The tensor's own amax."""
        return tensor.amax
