"""The command that measures what each part of a model loses in INT8."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glimmer_export.calibration import COSTS
from glimmer_export.exporter.cli.choices import one_of
from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import (
    GIVEN,
    PASSAGE_SOURCES,
    BackendName,
    BundleArgument,
    Json,
    Overwrite,
    Passages,
    Questions,
    Store,
    Threads,
)
from glimmer_export.exporter.cli.output import bold, console, print_json, print_notes, question_progress
from glimmer_export.exporter.cli.ranges import MAX_COUNT, number
from glimmer_export.exporter.config.read import NAME_OR_FILE, known
from glimmer_export.exporter.report.visible import visible
from glimmer_export.runtime.contract import WEIGHT_ALGORITHMS, OptionError
from glimmer_export.runtime.contract.manifest import QUANTIZATION_TARGETS

if TYPE_CHECKING:
    from glimmer_export.exporter.bundle.sensitivity import SensitivityReport

__all__ = ["sensitivity"]


def sensitivity(
    bundle: BundleArgument,
    questions: Questions,
    store: Store = None,
    samples: Annotated[
        int, typer.Option("--samples", min=1, max=MAX_COUNT, help="Questions to ask, in even steps over the file.")
    ] = 100,
    target: Annotated[
        str, one_of("--target", QUANTIZATION_TARGETS, "Whose INT8: cpu is that of this machine's CPU.")
    ] = QUANTIZATION_TARGETS[0],
    policy: Annotated[
        str, typer.Option("--policy", metavar=NAME_OR_FILE, help=f"Its rewrites are applied: {known('policy')}.")
    ] = "int8",
    graphs: Annotated[
        str | None, typer.Option("--graphs", help="Graphs to measure, separated by commas. Default: all.")
    ] = None,
    passages: Passages = PASSAGE_SOURCES[0],
    budget: Annotated[
        float,
        typer.Option("--budget", min=0.0, max=1.0, callback=number, help="Share that may stay in float."),
    ] = 0.05,
    cost: Annotated[
        str, one_of("--cost", COSTS, "Share of what: multiply-adds, weights, or the larger of a group's two.")
    ] = COSTS[-1],
    weight_only: Annotated[
        str | None,
        one_of("--weight-only", ("int4",), "Weights of 4 bits alone, instead of INT8. --graphs: the decoder's."),
    ] = None,
    algorithm: Annotated[
        str | None, one_of("--algorithm", ("k-quant", "rtn"), "How --weight-only rounds. Default: k-quant.")
    ] = None,
    threads: Threads = None,
    backend: BackendName = "onnxruntime-cpu",
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the losses into a .png or .svg.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Quantise each group of products alone, say what it loses, and which to keep in float (in 8 bits) for a budget."""
    require("onnx", "onnx_ir", "onnxruntime", "yaml", *(["matplotlib"] if plot else []))
    from glimmer_export.calibration.questions import question_files, read_questions
    from glimmer_export.calibration.sensitivity import SensitivityOptions
    from glimmer_export.exporter.bundle.sensitivity import bundle_sensitivity
    from glimmer_export.exporter.bundle.sensitivity_plot import plot_sensitivity
    from glimmer_export.exporter.bundle.weight_only import WeightOnlyOptions
    from glimmer_export.exporter.config.read import config_file
    from glimmer_export.exporter.report.plot import check_plot

    place = None
    if plot is not None:
        read = [bundle, store, *question_files(questions), config_file("policy", policy)]
        place = check_plot(plot, overwrite=overwrite, inputs=read)
    options = SensitivityOptions(
        samples=samples, given=passages == GIVEN, budget=budget, cost=cost, threads=threads,
        backend=backend, graphs=None if graphs is None else tuple(name.strip() for name in graphs.split(",")),
    )
    if algorithm is not None and weight_only is None:
        raise OptionError("--algorithm", expected="--weight-only beside it", found="none", fix="leave it out")
    few_bits = None if weight_only is None else WeightOnlyOptions(weight_only, algorithm or WEIGHT_ALGORITHMS[0])
    report = bundle_sensitivity(
        bundle, store, read_questions(questions), options, target=target, policy=policy, weight_only=few_bits,
        progress=lambda total: question_progress("Measuring", total),
    )
    if place is not None:
        plot_sensitivity(report, place)
    if as_json:
        print_json(report.to_json() | ({"plot": str(plot)} if plot else {}))
        return
    _print(report)
    if plot is not None:
        console().print("Wrote", bold(plot))


def _print(report: SensitivityReport) -> None:
    from rich.table import Table

    out, found = console(), report.sensitivity
    few = report.weight_only is not None
    what, kept = ("4 bits", "8 bits") if few else ("INT8", "float")
    table = Table(title=f"Each group alone in {what} for {report.target}, policy {visible(report.policy)}")
    for column in ("group", "score noise", "logit noise", "loss", "top-m", "answers", "work", "weights", "policy"):
        table.add_column(column, justify="left" if column in ("group", "policy") else "right", no_wrap=True)
    for row in found.groups:
        losses = row.losses
        table.add_row(
            visible(row.group.pattern), _noise(losses.score_noise), _noise(losses.logit_noise), _noise(losses.loss),
            _share(losses.top_m_overlap), _share(losses.answers_equal), _share(row.work), _share(row.weights),
            kept if row.kept_by_policy else "",
        )
    out.print(table)
    together = Table(title="Together, measured and by addition of the groups")
    for column in (f"in {what}", "score noise", "sum", "logit noise", "sum", "top-m", "answers"):
        together.add_column(column, justify="left" if column == f"in {what}" else "right", no_wrap=True)
    for name, losses, (scores, logits) in report.together():
        together.add_row(
            name, _noise(losses.score_noise), _noise(scores), _noise(losses.logit_noise), _noise(logits),
            _share(losses.top_m_overlap), _share(losses.answers_equal),
        )
    out.print(together)
    keep = Table(title=f"To keep in {kept} for {report.budget:.1%}, by {report.cost}")
    for column in ("group", "loss", "cost", "cost so far", "loss left"):
        keep.add_column(column, justify="left" if column == "group" else "right", no_wrap=True)
    for item in found.keep:
        keep.add_row(
            visible(item.pattern), _noise(item.loss), f"{item.cost:.2%}", f"{item.total_cost:.2%}",
            _noise(item.remaining_loss),
        )
    out.print(keep)
    print_notes(report.notes)
    out.print("For a policy, in place of its own:")
    # Not folded: a line of YAML that is broken is no YAML.
    out.print(report.yaml(), soft_wrap=True, highlight=False)


def _noise(value: float | None) -> str:
    return "-" if value is None else f"{value:.2e}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
