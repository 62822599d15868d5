"""Percentile-bootstrap interval of a paired difference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["Interval", "paired_interval"]

Interval = tuple[float, float]
"""Lower and upper end."""

RESAMPLES = 10_000
CONFIDENCE = 0.95


def paired_interval(reference: Sequence[float], candidate: Sequence[float], *, seed: int = 0) -> Interval | None:
    """The 95% interval of mean(candidate - reference) over questions drawn with replacement; None without any.

    Resampling n differences is drawing how often each distinct one comes up, from a multinomial: most are 0, so 10,000
    resamples of thousands of questions cost little.
    """
    if not reference:
        return None
    differences = np.subtract(candidate, reference, dtype=np.float64)
    values, counts = np.unique(differences, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(differences), counts / counts.sum(), size=RESAMPLES)
    means = drawn @ values / len(differences)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)
