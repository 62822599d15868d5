"""What a set of samples did not cover, in words."""

from __future__ import annotations

from collections.abc import Mapping

from glimmer_export.calibration.collect import GraphCollector

__all__ = ["FEW_SAMPLES", "GROWTH", "coverage_warnings"]

FEW_SAMPLES = 100
"""After n samples the next one is the largest yet with a chance of 1 in n + 1: from here on, less than 1%."""
GROWTH = 1.25
"""A range that the last tenth of the samples widened by more than this had not settled; INT8's step grows with it."""


def coverage_warnings(
    collectors: Mapping[str, GraphCollector], before: Mapping[tuple[str, str], float], samples: int
) -> tuple[str, ...]:
    """Few samples, graphs that never ran, tensors never seen, ranges that still grew.

    `before` holds, by graph and tensor, the amax before the last tenth of the samples.
    """
    warnings = []
    if samples < FEW_SAMPLES:
        warnings.append(f"only {samples} questions were run; take {FEW_SAMPLES} or more")
    grown: list[tuple[float, str]] = []
    for name, collector in collectors.items():
        if not collector.runs:
            warnings.append(f"graph {name} never ran: it has no ranges")
            continue
        unseen = collector.unseen()
        if unseen:
            warnings.append(f"graph {name}: {len(unseen)} tensors never had a value, {unseen[0]} the first")
        for tensor, running in collector.followed():
            earlier = before.get((name, tensor), 0.0)
            if running.amax > GROWTH * earlier and earlier > 0:
                grown.append((running.amax / earlier, f"{name}, {tensor}"))
    if grown:
        factor, where = max(grown)
        warnings.append(
            f"{len(grown)} ranges still grew by more than a quarter in the last tenth of the questions, "
            f"most by {factor:.2f} times ({where}): take more questions"
        )
    return tuple(warnings)
