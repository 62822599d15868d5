"""What a question costs, before anything is built."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glimmer_export.exporter.cli.checkpoints import POOLINGS
from glimmer_export.exporter.cli.choices import one_of
from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import Json, Overwrite
from glimmer_export.exporter.cli.output import bold, console, print_json
from glimmer_export.exporter.cli.ranges import MAX_PASSAGES
from glimmer_export.exporter.config.read import NAME_OR_FILE, known
from glimmer_export.runtime.contract import ARCHITECTURES, CROSS_ATTENTION_FORMS, STAGE_A_FORMS

__all__ = ["cost"]


def cost(
    model: Annotated[
        str | None, typer.Option("--model", metavar=NAME_OR_FILE, help=f"Size: {known('size')}; or name a --bundle.")
    ] = None,
    architecture: Annotated[str | None, one_of("--architecture", ARCHITECTURES, "Default: glimmer.")] = None,
    k: Annotated[int | None, typer.Option("--top-k", "-k", help="Passages retrieved. Default: 25.")] = None,
    m: Annotated[int | None, typer.Option("--top-m", "-m", help="Passages read, in glimmer. Default: 5.")] = None,
    answer_tokens: Annotated[int, typer.Option("--answer-tokens", help="Tokens of an answer, its end included.")] = 16,
    question_tokens: Annotated[int | None, typer.Option("--question-tokens", help="Default: 48.")] = None,
    passage_tokens: Annotated[int | None, typer.Option("--passage-tokens", help="Default: 304.")] = None,
    stage_a: Annotated[
        str | None, one_of("--stage-a", STAGE_A_FORMS, "Form of stage A. Default: lazy unless mean-pooled.")
    ] = None,
    cross_attention: Annotated[
        str,
        one_of(
            "--cross-attention", (*CROSS_ATTENTION_FORMS, "auto"), "Form of the decoder's cross-attention."
        ),
    ] = "auto",
    live_proportion: Annotated[
        str | None, typer.Option("--live-proportion", help="Share of the encoder that runs live. Default: 1/3.")
    ] = None,
    rerank_proportion: Annotated[
        str | None, typer.Option("--rerank-proportion", help="Share of the live encoder that ranks. Default: 1/4.")
    ] = None,
    score_pooling: Annotated[
        str | None, one_of("--score-pooling", POOLINGS, "What the score reads. Default: first.")
    ] = None,
    separate_reranker: Annotated[
        bool, typer.Option("--separate-reranker", help="Layers of its own for stage A, beside the live encoder.")
    ] = False,
    shortlist: Annotated[
        int | None,
        typer.Option("--shortlist", min=1, max=MAX_PASSAGES, help="Passages that stage A ranks. Default: all."),
    ] = None,
    passages: Annotated[int, typer.Option("--passages", help="Passages of the corpus, for the store.")] = 1_000_000,
    target: Annotated[
        str | None,
        typer.Option("--target", metavar=NAME_OR_FILE, help=f"Its floor: that of {known('target')}."),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", help="Count this bundle's graphs node by node; sizes default to the bundle's."),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw cost against k into a .png or .svg.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Compute a question's multiply-adds, bytes and least time: by the papers' formulas, and in our graphs."""
    require("onnx", "onnx_ir", "yaml", *(["matplotlib"] if plot else []))
    from glimmer_export.exporter.cost import CostRequest, cost_report, plot_cost, print_report
    from glimmer_export.exporter.report.plot import check_plot

    place = None if plot is None else check_plot(plot, overwrite=overwrite, inputs=[bundle])
    report = cost_report(
        CostRequest(
            model=model, architecture=architecture, k=k, m=m, question_tokens=question_tokens,
            passage_tokens=passage_tokens, answer_tokens=answer_tokens, stage_a=stage_a,
            cross_attention=cross_attention, live_proportion=live_proportion,
            rerank_proportion=rerank_proportion, score_pooling=score_pooling,
            separate_reranker=separate_reranker, shortlist=shortlist, passages=passages, target=target, bundle=bundle,
        )
    )
    if place is not None:
        plot_cost(report, place)
    if as_json:
        print_json(report.to_json() | ({"plot": str(plot)} if plot else {}))
        return
    print_report(report, console())
    if plot is not None:
        console().print("Wrote", bold(plot))
