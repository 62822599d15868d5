"""The losses of a model's groups as bars, the worst first."""

from __future__ import annotations

from io import BytesIO
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

from glimmer_export.exporter.files.publish import replace_file, write_errors
from glimmer_export.exporter.report.plot import FORMATS, METADATA, TEXT
from glimmer_export.exporter.report.visible import visible

if TYPE_CHECKING:
    from glimmer_export.exporter.bundle.sensitivity import SensitivityReport

__all__ = ["plot_sensitivity"]

MOST_BARS = 40


def plot_sensitivity(report: SensitivityReport, path: Path) -> None:
    """Write the picture, whole or not at all; its format is that of the suffix. Raises OutputError."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    rows = [row for row in report.sensitivity.groups if isfinite(row.losses.loss)][:MOST_BARS]
    kept = {item.pattern for item in report.sensitivity.keep}
    kind = FORMATS[path.suffix.lower()]
    content = BytesIO()
    with rc_context(TEXT):
        figure = Figure(figsize=(10, 1.5 + 0.24 * len(rows)), layout="constrained")
        axes = figure.subplots()
        places = range(len(rows))
        scores = [row.losses.score_noise or 0.0 for row in rows]
        axes.barh(places, scores, label="score noise")
        axes.barh(places, [row.losses.logit_noise for row in rows], left=scores, label="logit noise")
        names = [visible(row.group.pattern.strip("^/").replace(r"(_\d)?", "").replace("\\", "")) for row in rows]
        axes.set_yticks(places, names, fontsize=7)
        for label, row in zip(axes.get_yticklabels(), rows, strict=True):
            label.set_fontweight("bold" if row.group.pattern in kept else "normal")
        axes.margins(y=0.01)
        axes.invert_yaxis()
        axes.set_xlabel("error's variance, by that of the reference")
        axes.set_title(f"Each group alone in INT8 for {report.target} (bold: keep for {report.budget:.0%})")
        axes.grid(visible=True, axis="x", alpha=0.3)
        axes.legend()
        figure.savefig(content, format=kind, dpi=150, metadata=METADATA[kind])
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content.getvalue())
