"""Small pictures as SVG: points in a square, curves, bars of a histogram; with ticks on axes. Nothing is fetched."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from markupsafe import Markup

__all__ = ["Curve", "CurvePoint", "Mark", "curves_svg", "histogram_svg", "marks_svg", "scatter_svg", "tick_places"]

SIDE = 380
LEFT, BOTTOM, EDGE = 56, 40, 10
WIDTH, HEIGHT = 240, 96
TICKS = 5
COLOURS = 5
"""That the page has for curves; more curves than that begin again, dashed."""
LINE = 16


def tick_places(low: float, high: float) -> list[float]:
    """Two to five round numbers from low to high, in steps of 1, 2 or 5 times a power of ten; or low alone."""
    span = high - low
    if not math.isfinite(span) or span <= 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span / TICKS))
    steps = (power * factor for factor in (1, 2, 5, 10, 20))
    step = next(step for step in steps if math.floor(high / step) - math.ceil(low / step) < TICKS)
    return [place * step for place in range(math.ceil(low / step), math.floor(high / step) + 1)]


def scatter_svg(pairs: NDArray[np.float32]) -> Markup:
    """Points (n, 2) of one scale on both axes, reference and candidate, with the diagonal on which they are equal."""
    finite = pairs[np.isfinite(pairs).all(axis=1)].astype(np.float64)
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    span = (high - low) or 1.0
    right, floor = SIDE - EDGE, SIDE - BOTTOM
    width = right - LEFT

    def across(value: float) -> float:
        return LEFT + (value - low) / span * width

    def up(value: float) -> float:
        return floor - (value - low) / span * (floor - EDGE)

    drawn = [
        f'<svg viewBox="0 0 {SIDE} {SIDE}" width="{SIDE}" height="{SIDE}" class="scatter">',
        f'<rect class="frame" x="{LEFT}" y="{EDGE}" width="{width}" height="{floor - EDGE}"/>',
        f'<line class="equal" x1="{LEFT}" y1="{floor}" x2="{right}" y2="{EDGE}"/>',
        *(f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="1.6"/>' for x, y in finite),
    ]
    for value in tick_places(low, high):
        x, y = across(value), up(value)
        drawn += [
            f'<line class="tick" x1="{x:.1f}" y1="{floor}" x2="{x:.1f}" y2="{floor + 4}"/>',
            _text(x, floor + 16, f"{value:.4g}"),
            f'<line class="tick" x1="{LEFT - 4}" y1="{y:.1f}" x2="{LEFT}" y2="{y:.1f}"/>',
            _text(LEFT - 7, y + 4, f"{value:.4g}", "end"),
        ]
    middle = EDGE + (floor - EDGE) / 2
    drawn += [
        _text(LEFT + width / 2, SIDE - 6, "reference"),
        f'<g transform="rotate(-90 12 {middle})">{_text(12, middle, "candidate")}</g></svg>',
    ]
    return _markup(drawn)


def histogram_svg(counts: Sequence[int] | NDArray[np.int64], low: float, high: float, bars: int = 60) -> Markup:
    """Counts (bins,) over low to high, put together to at most `bars` bars.

    Their height is the logarithm of the count, so that tails are seen.
    """
    groups = np.array_split(np.asarray(counts, np.float64), min(bars, len(counts)))
    heights = np.log1p([float(group.sum()) for group in groups])
    tallest = float(heights.max(initial=0.0)) or 1.0
    floor, width = HEIGHT - 24, (WIDTH - LEFT - EDGE) / len(heights)
    drawn = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" class="histogram">']
    for place, height in enumerate(heights):
        if height:
            size = (floor - EDGE) * height / tallest
            drawn.append(
                f'<rect class="count" x="{LEFT + place * width:.2f}" y="{floor - size:.2f}" width="{width:.2f}" '
                f'height="{size:.2f}"/>'
            )
    drawn.append(f'<line class="tick" x1="{LEFT}" y1="{floor}" x2="{WIDTH - EDGE}" y2="{floor}"/>')
    span = (high - low) if math.isfinite(high - low) and high > low else 1.0
    for value in tick_places(low, high) if math.isfinite(high - low) else ():
        x = LEFT + (value - low) / span * (WIDTH - LEFT - EDGE)
        drawn.append(f'<line class="tick" x1="{x:.1f}" y1="{floor}" x2="{x:.1f}" y2="{floor + 4}"/>')
        drawn.append(_text(x, floor + 16, f"{value:.3g}"))
    most = max(int(10 ** math.floor(math.log10(max(math.expm1(tallest), 1.0)))), 1)
    for count in sorted({1, most}):
        y = floor - (floor - EDGE) * math.log1p(count) / tallest
        drawn.append(f'<line class="tick" x1="{LEFT - 4}" y1="{y:.1f}" x2="{LEFT}" y2="{y:.1f}"/>')
        drawn.append(_text(LEFT - 7, y + 4, f"{count:,}", "end"))
    return _markup([*drawn, "</svg>"])


@dataclass(frozen=True)
class CurvePoint:
    """A point, and the ends of the bar through it."""

    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """Points from left to right, under a name."""

    label: str
    points: tuple[CurvePoint, ...]


@dataclass(frozen=True)
class Mark:
    """A point with the ends of the bar through it, and the anchor in the page that it leads to; `label` is its hint."""

    x: float
    y: float
    low: float
    high: float
    anchor: str
    label: str
    chosen: bool = False


def curves_svg(curves: Sequence[Curve], across: str, up: str) -> Markup:
    """Curves with bars through their points, under the names of the axes; the curves' own names stand below."""
    points = [point for curve in curves for point in curve.points]
    axes = _Axes.around(points)
    height = SIDE + LINE * len(curves)
    drawn = [
        f'<svg viewBox="0 0 {SIDE} {height}" width="{SIDE}" height="{height}" class="curves">', *axes.drawn()
    ]
    for number, curve in enumerate(curves):
        style = f"curve c{number % COLOURS}" + (" dashed" if number >= COLOURS else "")
        places = " ".join(f"{axes.x(point.x):.1f},{axes.y(point.y):.1f}" for point in curve.points)
        drawn.append(f'<g class="{style}"><polyline points="{places}"/>')
        for point in curve.points:
            drawn.append(axes.bar(point))
            drawn.append(f'<circle cx="{axes.x(point.x):.1f}" cy="{axes.y(point.y):.1f}" r="2.5"/>')
        y = SIDE + LINE * number + 8
        drawn.append(f'<line x1="{LEFT}" y1="{y - 4}" x2="{LEFT + 24}" y2="{y - 4}"/></g>')
        drawn.append(_text(LEFT + 30, y, _escaped(curve.label), "start"))
    return _markup([*drawn, *axes.names(across, up), "</svg>"])


def marks_svg(marks: Sequence[Mark], across: str, up: str) -> Markup:
    """Points with bars through them, each a link to its anchor in the page."""
    axes = _Axes.around(marks)
    drawn = [f'<svg viewBox="0 0 {SIDE} {SIDE}" width="{SIDE}" height="{SIDE}" class="marks">', *axes.drawn()]
    for mark in marks:
        kind = "mark chosen" if mark.chosen else "mark"
        drawn.append(f'<a href="#{_escaped(mark.anchor)}"><title>{_escaped(mark.label)}</title>{axes.bar(mark)}')
        drawn.append(f'<circle class="{kind}" cx="{axes.x(mark.x):.1f}" cy="{axes.y(mark.y):.1f}" r="6"/></a>')
    return _markup([*drawn, *axes.names(across, up), "</svg>"])


@dataclass(frozen=True)
class _Axes:
    """A square of figures, with ticks on two of its sides."""

    across: tuple[float, float]
    up: tuple[float, float]

    @classmethod
    def around(cls, points: Sequence[CurvePoint | Mark]) -> _Axes:
        values = [value for point in points for value in (point.low, point.high)]
        return cls(_ends([point.x for point in points]), _ends(values))

    def x(self, value: float) -> float:
        left, right = self.across
        return LEFT + (value - left) / (right - left) * (SIDE - EDGE - LEFT)

    def y(self, value: float) -> float:
        (low, high), floor = self.up, SIDE - BOTTOM
        return floor - (value - low) / (high - low) * (floor - EDGE)

    def bar(self, point: CurvePoint | Mark) -> str:
        x = self.x(point.x)
        return f'<line x1="{x:.1f}" y1="{self.y(point.low):.1f}" x2="{x:.1f}" y2="{self.y(point.high):.1f}"/>'

    def drawn(self) -> list[str]:
        edge, floor = SIDE - EDGE, SIDE - BOTTOM
        drawn = [f'<rect class="frame" x="{LEFT}" y="{EDGE}" width="{edge - LEFT}" height="{floor - EDGE}"/>']
        for value in tick_places(*self.across):
            x = self.x(value)
            drawn.append(f'<line class="tick" x1="{x:.1f}" y1="{floor}" x2="{x:.1f}" y2="{floor + 4}"/>')
            drawn.append(_text(x, floor + 16, f"{value:.4g}"))
        for value in tick_places(*self.up):
            y = self.y(value)
            drawn.append(f'<line class="tick" x1="{LEFT - 4}" y1="{y:.1f}" x2="{LEFT}" y2="{y:.1f}"/>')
            drawn.append(_text(LEFT - 7, y + 4, f"{value:.4g}", "end"))
        return drawn

    @staticmethod
    def names(across: str, up: str) -> list[str]:
        middle = EDGE + (SIDE - BOTTOM - EDGE) / 2
        return [
            _text(LEFT + (SIDE - EDGE - LEFT) / 2, SIDE - 6, _escaped(across)),
            f'<g transform="rotate(-90 12 {middle})">{_text(12, middle, _escaped(up))}</g>',
        ]


def _ends(values: Sequence[float]) -> tuple[float, float]:
    """Of an axis: a little beyond the least and the greatest."""
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.05 * abs(low) or 0.5
    return low - margin, high + margin


def _escaped(words: str) -> str:
    """What may be anybody's, as it may stand in a page."""
    from markupsafe import escape

    return str(escape(words))


def _text(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def _markup(drawn: Sequence[str]) -> Markup:
    """What was drawn of numbers, our own words and escaped ones alone is safe to stand in a page as it is."""
    from markupsafe import Markup

    return Markup("".join(drawn))  # noqa: S704 - see the docstring
