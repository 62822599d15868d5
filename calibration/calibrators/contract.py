"""What every calibrator offers, and the two-sided bounds that come of it."""

from __future__ import annotations

from typing import Protocol

from glimmer_export.calibration.ranges import TensorRange

__all__ = ["Calibrator", "bounds"]


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
