"""How much of a channel's magnitude to move from activations into the weights that read them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["balance"]


def balance(
    amax: NDArray[np.floating], weight_amax: NDArray[np.floating], strength: float
) -> NDArray[np.float64]:
    """Factor of each channel (channels,): activations are divided by it, the weight's rows multiplied (SmoothQuant).

    `amax ** strength / weight_amax ** (1 - strength)` (Xiao et al. 2023, equation 4), about 1 in the middle. It is not
    rounded to powers of two: what follows is then the same however a checkpoint's channels were scaled against their
    weights, and FP32 rounds both sides by 2**-24 at most. A channel that never held anything, or that no weight reads,
    keeps its size.
    """
    amax, weight_amax = amax.astype(np.float64), weight_amax.astype(np.float64)
    alive = (amax > 0) & (weight_amax > 0)
    sizes, weights = (np.log2(values, out=np.zeros_like(values), where=alive) for values in (amax, weight_amax))
    exponent = strength * sizes - (1 - strength) * weights
    centre = np.median(exponent[alive]) if alive.any() else 0.0
    factor: NDArray[np.float64] = np.exp2(np.where(alive, exponent - centre, 0.0))
    return factor
