"""The command that says how good models are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from glimmer_export.exporter.cli.extras import require
from glimmer_export.exporter.cli.options import (
    GIVEN,
    PASSAGE_SOURCES,
    Backend,
    BatchSize,
    ChunkWords,
    CorpusFormat,
    Json,
    Limit,
    Overwrite,
    Passages,
    RecordedPrecision,
    Retrieval,
    Store,
    Threads,
    Verify,
)
from glimmer_export.exporter.cli.output import bold, command_line, console, print_json, question_progress
from glimmer_export.runtime.contract.kinds import CHECKPOINT, kind_of

__all__ = ["evaluate"]


def evaluate(
    context: typer.Context,
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL", help="Checkpoints and bundles; the first is compared with.")
    ],
    questions: Annotated[
        list[str],
        typer.Option(
            "--questions", metavar="FILE[=TASK]",
            help="FILE or FILE=TASK, as for `answer`. Default task: each row's own, or the file's name.",
        ),
    ],
    corpus: Annotated[
        list[Path] | None,
        typer.Option("--corpus", help="Passages to retrieve; each model computes the memory of those found."),
    ] = None,
    corpus_format: CorpusFormat = None,
    chunk_words: ChunkWords = None,
    store: Store = None,
    grid: Annotated[
        list[str] | None,
        typer.Option("--grid", metavar="k=N,...|m=N,...", help="Ask with each of these k or m. Default: the model's."),
    ] = None,
    passages: Passages = PASSAGE_SOURCES[0],
    retrieval: Retrieval = "bm25",
    html: Annotated[Path | None, typer.Option("--html", help="Write a page with curves here.")] = None,
    work: Annotated[
        Path | None,
        typer.Option(
            "--work", metavar="FOLDER",
            help="Keep answers here until the end: the same command, given again, continues. Default: beside the page "
            "or the plot.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw the curves into a .png or .svg.")
    ] = None,
    overwrite: Overwrite = False,
    batch_size: BatchSize = 8,
    limit: Limit = None,
    backend: Backend = "auto",
    compute_precision: RecordedPrecision = "auto",
    threads: Threads = None,
    verify: Verify = True,
    as_json: Json = False,
) -> None:
    """Score models on files of questions, by task, with intervals, at any k and m; and compare them with the first."""
    checkpoints = any(kind_of(path) == CHECKPOINT for path in models)
    require(*(["torch"] if checkpoints else []), *(["matplotlib"] if plot else []))
    from glimmer_export.exporter.evaluation import EvaluationRequest, Grid, ModelOptions
    from glimmer_export.exporter.evaluation import evaluate as evaluated
    from glimmer_export.exporter.evaluation.plot import plot_evaluation
    from glimmer_export.exporter.evaluation.questions import paths_of, read_tasks, task_files
    from glimmer_export.exporter.evaluation.show import print_report, write_html
    from glimmer_export.exporter.evaluation.work import check_work, remove_work
    from glimmer_export.exporter.memory import CorpusSource
    from glimmer_export.exporter.report.page import check_page
    from glimmer_export.exporter.report.plot import check_plot

    asked = task_files(questions)
    read = [*models, *(corpus or ()), store, *paths_of(asked)]
    picture = None if plot is None else check_plot(plot, overwrite=overwrite, inputs=read)
    page = None if html is None else check_page(html, [*read, plot])
    if work is None and (output := page or picture) is not None:
        work = output.with_name(f"{output.name}.partial")
    if work is not None:
        work = check_work(work, [*read, page, picture])
    request = EvaluationRequest(
        tuple(models), None if not corpus else CorpusSource.of(corpus, corpus_format, chunk_words),
        ModelOptions(store, batch_size, threads, backend, verify, compute_precision), Grid.parse(grid or ()),
        passages == GIVEN, retrieval, work,
    )  # fmt: skip
    report = evaluated(request, read_tasks(asked, limit), question_progress)
    if picture is not None:
        plot_evaluation(report, picture)
    if page is not None:
        write_html(report, page, command=command_line(context))
    if as_json:
        print_json(report.to_json())
    else:
        print_report(report, console())
        for path in (plot, html):
            if path is not None:
                console().print("Wrote", bold(path))
    if work is not None:
        remove_work(work)
