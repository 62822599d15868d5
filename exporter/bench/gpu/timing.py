"""Medians of interleaved runs after a warm-up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

from glimmer_export.exporter.bench.measure import interleaved

__all__ = ["Work", "interleaved_ms", "spread"]

Work = Callable[[int], Any]
"""Does run number n, and returns when it is done."""


def interleaved_ms(work: Mapping[str, Work], *, repeats: int, warmup: int = 3) -> dict[str, list[float]]:
    """Milliseconds of every counted run of each, in turn and in an order drawn anew in every round."""
    times: dict[str, list[float]] = {name: [] for name in work}
    for run, name in interleaved(list(work), warmup + repeats):
        started = time.perf_counter()
        work[name](run)
        if run >= warmup:
            times[name].append(1e3 * (time.perf_counter() - started))
    return times


def spread(times: list[float]) -> dict[str, Any]:
    """The median, the least and the greatest, and every value."""
    return {
        "median_ms": median(times), "min_ms": min(times), "max_ms": max(times),
        "times_ms": [round(value, 4) for value in times],
    }
