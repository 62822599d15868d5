"""Numbers that FP16 holds, and what stands for a masked score in it."""

from __future__ import annotations

import numpy as np

__all__ = ["FP16_MAX", "FP16_SAFE", "FP32_LOWEST", "MASKED", "MAX_BIAS", "MAX_SCORE", "SMALLEST_AMAX"]

FP16_MAX = 65504.0
"""The largest finite number in FP16."""

FP16_SAFE = FP16_MAX / 2
"""The largest magnitude on the calibration data that is put into FP16: other texts reach further (1.4 times, seen)."""

FP32_LOWEST = float(np.finfo(np.float32).min)
"""What stands in an FP32 attention bias where nothing may be attended."""

MASKED = -(2.0**15)
"""What stands there in FP16.

With scores of at most MAX_SCORE the sum stays within 2**15 + 2**13 = 40,960: finite, so a row with nothing to attend
gives a mean and no NaN. A masked position ends at least 2**15 - 2 * 2**13 = 16,384 below any other, where softmax needs
18 for a weight that FP16 rounds to 0. FP16's own lowest number would do neither: any negative score makes it infinite.
"""

MAX_SCORE = 2.0**13
"""The largest magnitude of attention score plus position bias that MASKED stands for."""

MAX_BIAS = 0.01 * 2.0**11
"""The largest entry of a position bias, 20.5, that FP16 rounds by at most 0.01: by a hundredth of a weight."""

SMALLEST_AMAX = 2.0**-6
"""A tensor whose largest value is below this meets FP16's subnormals (below 2**-14) within 8 powers of two."""
