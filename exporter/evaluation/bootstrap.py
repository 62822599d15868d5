"""Paired bootstrap: means of figures over questions drawn with replacement, the same draws for all that is compared.

As the draws are shared, the difference of two models' means in each resample is the mean of their differences, question
by question: its interval is that of the paired bootstrap.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["CONFIDENCE", "RESAMPLES", "SEED", "interval", "resampled_means"]

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0
ELEMENTS_AT_ONCE = 1 << 21
"""Of the table of how often each question was drawn: 16 MiB."""


def resampled_means(values: NDArray[np.float64], *, stream: int = 0) -> NDArray[np.float64]:
    """The mean of each figure in each resample: (questions, figures) -> (RESAMPLES, figures) float64.

    NaN is a figure that a question does not have: a mean is that of the questions drawn that have it, NaN if none of
    them has. Another `stream` draws otherwise, as for the questions of another task.
    """
    questions = len(values)
    generator = np.random.default_rng([SEED, stream])
    known = ~np.isnan(values)
    weights = np.concatenate([np.where(known, values, 0.0), known.astype(np.float64)], axis=1)
    means = np.empty((RESAMPLES, values.shape[1]))
    at_once = max(1, ELEMENTS_AT_ONCE // max(1, questions))
    for start in range(0, RESAMPLES, at_once):
        rows = min(at_once, RESAMPLES - start)
        drawn = generator.integers(0, questions, (rows, questions)) + questions * np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=rows * questions).reshape(rows, questions)
        sums, numbers = np.split(counts.astype(np.float64) @ weights, 2, axis=1)
        with np.errstate(invalid="ignore"):
            means[start : start + rows] = sums / numbers
    return means


def interval(means: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The ends of the percentile intervals: (RESAMPLES, ...) -> two of (...), NaN where no resample has a mean."""
    tail = (1 - CONFIDENCE) / 2
    measured = ~np.isnan(means).all(axis=0)
    low, high = np.full((2, *means.shape[1:]), np.nan)
    low[measured], high[measured] = np.nanquantile(means[:, measured], (tail, 1 - tail), axis=0)
    return low, high
