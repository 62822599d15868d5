"""Cost against k: the papers' four architectures and ours, as a picture."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

from glimmer_export.exporter.cost.model import CostModel
from glimmer_export.exporter.cost.ours import stage_costs
from glimmer_export.exporter.cost.papers import PAPER_ARCHITECTURES, paper_stages
from glimmer_export.exporter.cost.report import CostReport
from glimmer_export.exporter.cost.workload import Workload
from glimmer_export.exporter.publish import Inputs, check_file, replace_file, write_errors
from glimmer_export.exporter.visible import visible
from glimmer_export.runtime.contract import OptionError, OutputError

__all__ = ["check_plot", "cost_curves", "plot_cost"]

FORMATS = {".png": "png", ".svg": "svg"}
LEAST_RANGE = 50
TEXT: Any = {"svg.hashsalt": "glimmer-export", "text.parse_math": False}
"""A name between dollars is no formula; and the same figures give the same bytes."""
METADATA = {"png": {"Software": None}, "svg": {"Date": None}}
"""Left out, so that the same figures give the same bytes."""


def check_plot(path: Path, *, overwrite: bool, inputs: Inputs = ()) -> Path:
    """Where to draw the picture, as `check_file` gives it.

    Raises OptionError for a format that is not drawn, OutputError where the file exists, is a directory or is not apart
    from `inputs`.
    """
    if path.suffix.lower() not in FORMATS:
        raise OptionError(
            "option --plot", expected=f"a file ending in {' or '.join(FORMATS)}", found=repr(path.name),
            fix="name such a file",
        )
    place = check_file(path, inputs)
    if path.exists() and not overwrite:
        raise OutputError(
            f"output {path}", expected="a file that does not exist yet", found="one that does",
            fix="name another or pass --overwrite",
        )
    return place


def cost_curves(model: CostModel, workload: Workload, ks: range) -> dict[str, list[int]]:
    """Multiply-adds at each k, m at most k: by the papers' formulas, and in our graphs under "ours"."""
    workloads = [replace(workload, num_retrieved=k, num_selected=min(k, workload.num_selected)) for k in ks]
    papers = {
        name: [sum(paper_stages(model, name, at_k).values()) for at_k in workloads] for name in PAPER_ARCHITECTURES
    }
    ours = [sum(stage.macs for stage in stage_costs(model, at_k).values()) for at_k in workloads]
    return {**papers, "ours": ours}


def plot_cost(report: CostReport, path: Path) -> None:
    """Write the picture, whole or not at all. Raises OutputError where it cannot be written."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    model, workload = report.model, report.workload
    ks = range(1, max(LEAST_RANGE, workload.num_retrieved) + 1)
    kind = FORMATS[path.suffix.lower()]
    content = BytesIO()
    with rc_context(TEXT):
        figure = Figure(figsize=(8, 5), layout="constrained")
        axes = figure.subplots()
        for name, macs in cost_curves(model, workload, ks).items():
            ours = name == "ours"
            label = f"{model.shape.architecture}, our graphs" if ours else f"{name}, by the paper"
            axes.plot(ks, [value / 1e12 for value in macs], label=label, linewidth=3 if ours else 1.5)
        axes.set_yscale("log")
        axes.set_xlabel(f"k, passages retrieved (m = {workload.num_selected} selected, or k where that is less)")
        axes.set_ylabel("multiply-adds a question, in units of 10¹²")
        axes.set_title(
            f"{visible(model.name)}: {workload.question_tokens} + {workload.passage_tokens} tokens, answers of "
            f"{workload.answer_tokens}"
        )
        axes.grid(visible=True, which="both", alpha=0.3)
        axes.legend()
        figure.savefig(content, format=kind, dpi=150, metadata=METADATA[kind])
    with write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, content.getvalue())
