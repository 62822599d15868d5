"""The panels as one picture by matplotlib."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

from glimmer_export.exporter.evaluation.panels import panels_of
from glimmer_export.exporter.evaluation.report import EvaluationReport
from glimmer_export.exporter.files.publish import replace_file
from glimmer_export.exporter.report.plot import FORMATS, METADATA, TEXT
from glimmer_export.exporter.report.visible import visible

__all__ = ["plot_evaluation"]

WIDTH, HEIGHT = 6.4, 4.6


def plot_evaluation(report: EvaluationReport, path: Path) -> None:
    """Write the picture, whole or not at all; its format is that of the suffix. Raises OutputError."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    panels = panels_of(report)
    kind = FORMATS[path.suffix.lower()]
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    content = BytesIO()
    with rc_context(TEXT):
        figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows), layout="constrained")
        places = figure.subplots(rows, columns, squeeze=False).flatten()
        for axes in places[len(panels) :]:
            axes.set_visible(False)
        for axes, panel in zip(places, panels, strict=False):
            for curve in panel.curves:
                points = curve.points
                bars = [[point.y - point.low for point in points], [point.high - point.y for point in points]]
                axes.errorbar(
                    [point.x for point in points], [point.y for point in points], yerr=bars, marker="o", capsize=3,
                    label=visible(curve.label),
                )
            axes.locator_params(axis="x", integer=panel.counts)
            axes.set_title(panel.title)
            axes.set_xlabel(panel.across)
            axes.set_ylabel(panel.up)
            axes.grid(visible=True, alpha=0.3)
            axes.legend(fontsize="small")
        figure.savefig(content, format=kind, dpi=150, metadata=METADATA[kind])
    replace_file(path, content.getvalue())
