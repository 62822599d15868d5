"""What is kept of a tensor while samples run: extremes, and a histogram whose range doubles as larger values come."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from glimmer_export.calibration.ranges import TensorRange

__all__ = ["BINS", "MASKED", "RunningHistogram", "RunningRange", "limit_of"]

BINS = 2048
HALF = BINS // 2
MIN_LIMIT = 2.0**-64
MASKED = -1e30
"""At or below this a value is no activation but the bias that hides a position from attention."""
HISTOGRAM_VALUES = 1 << 18
"""The most values of one tensor that a run adds to its histogram; extremes are taken over all."""
BUFFERED_VALUES = 1 << 16


def limit_of(amax: float) -> float:
    """The smallest power of two, from 2**-64 on, that is greater than `amax`."""
    return max(MIN_LIMIT, math.ldexp(1.0, math.frexp(amax)[1])) if amax else MIN_LIMIT


class RunningHistogram:
    """Counts over [-limit, limit] in BINS equal bins, zero between the middle two, where it counts as positive.

    The limit is the smallest power of two above the largest magnitude, and bins merge exactly when it doubles: the
    counts do not depend on the order in which values come.
    """

    def __init__(self) -> None:
        self.limit = MIN_LIMIT
        self.counts = np.zeros(BINS, np.int64)

    def add(self, values: NDArray[np.float32], amax: float) -> None:
        """Count `values` (n,), none of magnitude above `amax`."""
        limit = limit_of(amax)
        if limit > self.limit:
            self._widen(limit)
        # By magnitude, so that what underflows here stays on its own side of zero.
        places = (values * np.float32(HALF / self.limit)).astype(np.intp)
        places += HALF
        places -= values < 0
        self.counts += np.bincount(places, minlength=BINS)

    def _widen(self, limit: float) -> None:
        merged = int(min(HALF, limit / self.limit))
        below = self.counts[HALF - 1 :: -1].reshape(-1, merged).sum(axis=1)
        above = self.counts[HALF:].reshape(-1, merged).sum(axis=1)
        self.counts = np.zeros(BINS, np.int64)
        self.counts[HALF : HALF + len(above)] = above
        self.counts[HALF - len(below) : HALF] = below[::-1]
        self.limit = limit


class RunningRange:
    """Statistics of one tensor. `channels` is the size of its last axis, None if that varies.

    Values at or below MASKED are left out of everything. A tensor with such values has no statistics by channel.
    """

    def __init__(self, channels: int | None, *, shape_only: bool = False) -> None:
        """`shape_only`: the values are those of another tensor in another shape, so only its channels are followed."""
        self.minimum, self.maximum = math.inf, -math.inf
        self._channel_amax = None if channels is None else np.zeros(channels, np.float32)
        self._shape_only = shape_only
        self._histogram = RunningHistogram()
        self._pending: list[NDArray[np.float32]] = []
        self._num_pending = 0

    @property
    def seen(self) -> bool:
        """Whether any value has come."""
        return self.minimum <= self.maximum

    @property
    def amax(self) -> float:
        """Largest magnitude so far, 0 before any."""
        return max(abs(self.minimum), abs(self.maximum)) if self.seen else 0.0

    def observe(self, values: NDArray[np.float32]) -> None:
        """Take in one run's values, of any shape; raises FloatingPointError if one is not finite."""
        if not values.size:
            return
        if self._channel_amax is not None:
            rows = values.reshape(-1, len(self._channel_amax))
            lowest, highest = rows.min(axis=0), rows.max(axis=0)
            low, high = float(lowest.min()), float(highest.max())
        else:
            low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise FloatingPointError("NaN or infinity")
        if low <= MASKED:
            self._channel_amax = None
            values = values[values > MASKED]
            if not values.size:
                return
            low, high = float(values.min()), float(values.max())
        elif self._channel_amax is not None:
            np.maximum(self._channel_amax, np.maximum(highest, -lowest), out=self._channel_amax)
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        if not self._shape_only:
            self._count(values)

    @property
    def channel_amax(self) -> NDArray[np.float32] | None:
        """Largest magnitude of each index of the last axis (channels,), None if that is not followed."""
        return self._channel_amax

    def result(self) -> TensorRange:
        """The statistics so far, of a tensor that was not followed by its shape only."""
        self._flush()
        return TensorRange(
            minimum=self.minimum + 0.0,  # no negative zero
            maximum=self.maximum + 0.0,
            count=int(self._histogram.counts.sum()),
            limit=self._histogram.limit,
            histogram=self._histogram.counts.copy(),
            channel_amax=self.channel_amax,
        )

    def _count(self, values: NDArray[np.float32]) -> None:
        stride = -(-values.size // HISTOGRAM_VALUES)
        if stride > 1:  # whole rows of the last axis, so that every channel is counted alike
            values = values.reshape(-1, values.shape[-1])[::stride] if values.ndim > 1 else values[::stride]
        self._pending.append(values.reshape(-1))
        self._num_pending += values.size
        if self._num_pending >= BUFFERED_VALUES:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._histogram.add(np.concatenate(self._pending), self.amax)
            self._pending, self._num_pending = [], 0
