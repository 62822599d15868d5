"""A cost report for people: tables, and the papers' four architectures beside ours against k as a picture."""

from __future__ import annotations

from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from glimmer_export.exporter.cost.model import CostModel, Workload
from glimmer_export.exporter.cost.ours import stage_costs
from glimmer_export.exporter.cost.papers import FIGURE_2, PAPER_ARCHITECTURES, paper_stages
from glimmer_export.exporter.cost.report import CONVENTION, CostReport, TargetFloors
from glimmer_export.exporter.files.publish import replace_file, write_errors
from glimmer_export.exporter.report.plot import FORMATS, METADATA, TEXT
from glimmer_export.exporter.report.visible import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

__all__ = ["cost_curves", "plot_cost", "print_report"]

LEAST_RANGE = 50


def print_report(report: CostReport, console: Console) -> None:
    """Papers and ours side by side, our stages, store and cache, and a machine's floors."""
    from rich.filesize import decimal

    from glimmer_export.exporter.report.terminal import bold, text

    work, model = report.workload, report.model
    shortlisted = model.shape.num_shortlisted
    forms = f"stage A {model.forms.stage_a or '-'}, cross-attention {model.forms.cross_attention}"
    forms += ", separate reranker" if model.shape.separate_reranker else ""
    console.print(
        bold(f"{model.shape.architecture} {model.name}:"),
        f"k {work.num_retrieved}, "
        f"m {work.num_selected}, " + (f"a shortlist of {shortlisted}, " if shortlisted else "")
        + f"{work.question_tokens} + {work.passage_tokens} tokens, answers of "
        f"{work.answer_tokens}; {forms}"
    )
    console.print(_totals(report))
    console.print(
        f"ours does {report.ratio_to_paper:.2f} times less than the paper's {model.shape.architecture}"
    )
    console.print(_stages(report))
    console.print(_store(report))
    caches = ", ".join(f"{name} {decimal(size)}" for name, size in report.cache_bytes.items())
    console.print(f"decoder cache in FP32: {caches}")
    console.print(_step(report))
    if report.floors is not None:
        console.print(_floors(report.floors))
        console.print(text(report.floors.target.source.strip(), "dim"))
    console.print(text(_figure_line(report), "dim"))
    console.print(text(CONVENTION, "dim"))


def _table(title: str, *columns: str) -> Table:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for index, column in enumerate(columns):
        table.add_column(column, justify="right" if index else "left")
    return table


def _totals(report: CostReport) -> Table:
    from glimmer_export.exporter.report.terminal import bold

    table = _table("a question", "", "multiply-adds", "samples per TFLOP")
    rates = report.samples_per_tflop
    for name in report.papers:
        table.add_row(f"{name}, by the paper", _count(report.paper_macs(name)), f"{rates[name]:.4f}")
    table.add_row(bold("ours"), bold(_count(report.our_macs)), f"{rates['ours']:.4f}")
    if report.counted_macs is not None:
        table.add_row("ours, counted in the graphs", _count(report.counted_macs), f"{1e12 / report.counted_macs:.4f}")
    return table


def _stages(report: CostReport) -> Table:
    counted = report.counted
    table = _table("our graphs", "graph", "runs", "a run", "a question", "share", *(["counted"] if counted else []))
    for name, stage in report.ours.items():
        row = [
            name, str(stage.runs), _count(stage.macs_per_run), _count(stage.macs), f"{stage.macs / report.our_macs:.1%}"
        ]
        table.add_row(*row, *([_count(counted[name].macs)] if counted else []))
    return table


def _store(report: CostReport) -> Table:
    from rich.filesize import decimal

    passages = report.workload.corpus_passages
    table = _table(
        f"store; pre-computing takes {_count(report.passage_macs)} multiply-adds a passage, "
        f"{_count(report.passage_macs * passages)} in all", "codec", "a passage", f"{passages:,} passages",
    )
    for name, size in report.codecs.items():
        table.add_row(name, decimal(size), decimal(size * passages))
    return table


def _step(report: CostReport) -> str:
    from rich.filesize import decimal

    weights, states = (
        ", ".join(f"{decimal(size)} {name if name == 'bundle' else name.upper()}" for name, size in sizes.items())
        for sizes in (report.step_bytes.weights, report.step_bytes.states)
    )
    return f"a decoder step moves weights of {weights}; and for each question states of {states}"


def _floors(floors: TargetFloors) -> Table:
    table = _table(f"{floors.name}: floor in ms, and what binds", "graph", *floors.stages)
    for name in next(iter(floors.stages.values())):
        cells = [stages[name] for stages in floors.stages.values()]
        table.add_row(name, *(f"{cell.ms:.3f} {cell.binds}" if cell.binds else "-" for cell in cells))
    totals = [sum(floor.ms for floor in stages.values()) for stages in floors.stages.values()]
    table.add_row("in all", *(f"{total:.3f}" for total in totals))
    hours = [seconds / 3600 for seconds in floors.precomputation_s.values()]
    table.add_row("pre-computing the store", *(f"{hour:.1f} h" for hour in hours))
    return table


def _figure_line(report: CostReport) -> str:
    check = report.figure_2
    residuals = ", ".join(f"{name} k={FIGURE_2[name][0]} {value:+.1%}" for name, value in check.residuals.items())
    errors = ", ".join(f"{name} {value:+.1%}" for name, value in check.ratio_errors.items())
    return (
        f"Formulas against the GLIMMER paper's figure 2 (XXL, answers of {check.answer_tokens}): {residuals}; ratios: "
        f"{errors}. A fit, not the paper's word: residuals are least at {check.fitted_answer_tokens} answer tokens."
    )


def _count(value: int) -> str:
    size = float(value)
    for unit in ("", "k", "M", "G"):
        if size < 1000:
            return f"{size:.0f}" if not unit else f"{size:.2f} {unit}"
        size /= 1000
    return f"{size:,.3f} T"


def cost_curves(model: CostModel, workload: Workload, ks: range) -> dict[str, list[int]]:
    """Multiply-adds at each k, m at most k: by the papers' formulas, and in our graphs under "ours"."""
    workloads = [replace(workload, num_retrieved=k, num_selected=min(k, workload.num_selected)) for k in ks]
    papers = {
        name: [sum(paper_stages(model, name, at_k).values()) for at_k in workloads] for name in PAPER_ARCHITECTURES
    }
    ours = [sum(stage.macs for stage in stage_costs(model, at_k).values()) for at_k in workloads]
    return {**papers, "ours": ours}


def plot_cost(report: CostReport, path: Path) -> None:
    """Write the picture, whole or not at all. Raises OutputError if it cannot be written."""
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
        axes.yaxis.set_major_formatter("{x:g}")  # a logarithmic axis writes its own as mathematics, which is not parsed
        axes.set_xlabel(f"k, passages retrieved (m = {workload.num_selected} selected, or k if that is less)")
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
