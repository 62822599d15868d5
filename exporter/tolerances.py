"""How far a result may stand from its reference; each figure with its reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["TOLERANCES", "Tolerance", "max_abs_error"]


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed absolute error: `atol + rtol * max|reference|`."""

    atol: float
    rtol: float
    reason: str

    def limit(self, reference: NDArray[np.floating]) -> float:
        """The bound for a reference array; infinities in it do not count."""
        finite = np.abs(reference[np.isfinite(reference)])
        return self.atol + self.rtol * float(finite.max(initial=0.0))


TOLERANCES = {
    "fp32": Tolerance(
        1e-5, 1e-4, "float32 sums in another order: about 1e-7 a sum, amplified by tens of layers and by softmax"
    ),
}
"""By the arithmetic precision of the graph that is compared with torch in float32."""


def max_abs_error(found: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Largest absolute difference; equal infinities agree, any other non-finite difference is infinite."""
    if found.shape != reference.shape:
        return float("inf")
    with np.errstate(invalid="ignore"):
        difference = np.abs(found.astype(np.float64) - reference.astype(np.float64))
    difference[found == reference] = 0
    return float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0))
