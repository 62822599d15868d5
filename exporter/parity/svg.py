"""Small pictures as SVG text: points in a square, bars of a histogram. Well-formed XML, nothing fetched."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["histogram_svg", "scatter_svg"]

SIDE, MARGIN = 360, 30
WIDTH, HEIGHT = 180, 60


def scatter_svg(pairs: NDArray[np.float32]) -> str:
    """Points (n, 2) of one scale on both axes, with the diagonal on which the two are equal."""
    finite = pairs[np.isfinite(pairs).all(axis=1)].astype(np.float64)
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    span = (high - low) or 1.0
    places = MARGIN + (finite - low) / span * (SIDE - 2 * MARGIN)
    points = "".join(f'<circle cx="{x:.1f}" cy="{SIDE - y:.1f}" r="1.6"/>' for x, y in places)
    end = SIDE - MARGIN
    return (
        f'<svg viewBox="0 0 {SIDE} {SIDE}" width="{SIDE}" height="{SIDE}" class="scatter">'
        f'<rect x="{MARGIN}" y="{MARGIN}" width="{end - MARGIN}" height="{end - MARGIN}"/>'
        f'<line x1="{MARGIN}" y1="{end}" x2="{end}" y2="{MARGIN}"/>{points}'
        f'<text x="{MARGIN}" y="{SIDE - 10}">{low:.3g}</text><text x="{end}" y="{SIDE - 10}">{high:.3g}</text>'
        f'<text x="{SIDE / 2}" y="{SIDE - 10}">reference</text>'
        f'<text x="10" y="{SIDE / 2}" transform="rotate(-90 10 {SIDE / 2})">candidate</text></svg>'
    )


def histogram_svg(counts: Sequence[int] | NDArray[np.int64], bars: int = 60) -> str:
    """Counts (bins,) put together to at most `bars` bars, by the logarithm of their height, so that tails are seen."""
    groups = np.array_split(np.asarray(counts, np.float64), min(bars, len(counts)))
    heights = np.log1p([float(group.sum()) for group in groups])
    tallest = float(heights.max(initial=0.0)) or 1.0
    width = WIDTH / len(heights)
    drawn = "".join(
        f'<rect x="{place * width:.2f}" y="{HEIGHT * (1 - height / tallest):.2f}" width="{width:.2f}" '
        f'height="{HEIGHT * height / tallest:.2f}"/>'
        for place, height in enumerate(heights)
        if height
    )
    return f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" class="histogram">{drawn}</svg>'
