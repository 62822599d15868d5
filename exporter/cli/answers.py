"""Commands that answer questions: ask one, answer a file."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glimmer_export.exporter.cli.options import (
    GIVEN,
    PASSAGE_SOURCES,
    Backend,
    BatchSize,
    BundleArgument,
    CompileCache,
    DraftTokens,
    Json,
    Limit,
    Mass,
    NumRetrieved,
    NumSelected,
    Passages,
    Questions,
    RecordedPrecision,
    RequireParity,
    Retrieval,
    Store,
    Threads,
    Verify,
    check_cache,
    required_parity,
)
from glimmer_export.exporter.cli.output import bold, console, print_json, print_warnings, question_progress
from glimmer_export.exporter.report.terminal import text
from glimmer_export.exporter.report.visible import visible

if TYPE_CHECKING:
    from glimmer_export.runtime import Answer, BackendChoice, Session

__all__ = ["answer", "ask"]


def ask(
    bundle: BundleArgument,
    question: Annotated[str, typer.Argument(metavar="QUESTION")],
    store: Store = None,
    passage: Annotated[
        list[str] | None, typer.Option("--passage", help="A passage's text to read instead of retrieving; repeatable.")
    ] = None,
    top_k: NumRetrieved = None,
    top_m: NumSelected = None,
    mass: Mass = None,
    retrieval: Retrieval = "bm25",
    backend: Backend = "auto",
    draft_tokens: DraftTokens = None,
    compute_precision: RecordedPrecision = "auto",
    compile_cache: CompileCache = None,
    require_parity: RequireParity = None,
    threads: Threads = None,
    verify: Verify = True,
    as_json: Json = False,
) -> None:
    """Answer one question; print the answer, the passages with their scores, and the time by stage."""
    from glimmer_export.exporter.answering import choice_to_json
    from glimmer_export.runtime import Passage, PassageTruncatedWarning, Session

    check_cache(compile_cache, bundle, store)
    given = [Passage(None, "", text) for text in passage] if passage else None
    with Session.open(
        bundle, store, threads=threads, verify=verify, retrieval=retrieval, backend=backend,
        draft_tokens=draft_tokens, require_parity=required_parity(require_parity),
        compute_precision=compute_precision, compile_cache=compile_cache,
    ) as session:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PassageTruncatedWarning)  # said below
            result = session.answer(question, top_k, top_m, mass=mass, passages=given)
        choice, lacking = session.backend_choice, _without_vector(session, retrieval)
    assert choice is not None
    if as_json:
        print_json({**result.to_dict(), **lacking, "backend": choice_to_json(choice)})
    else:
        _print_answer(result, choice, retrieval)
        _warn_of_lacking(lacking)


def answer(
    bundle: BundleArgument,
    questions: Questions,
    store: Store = None,
    passages: Passages = PASSAGE_SOURCES[0],
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="Write the answers here, in KILT's format.")
    ] = None,
    top_k: NumRetrieved = None,
    top_m: NumSelected = None,
    mass: Mass = None,
    batch_size: BatchSize = 8,
    limit: Limit = None,
    retrieval: Retrieval = "bm25",
    backend: Backend = "auto",
    draft_tokens: DraftTokens = None,
    compute_precision: RecordedPrecision = "auto",
    compile_cache: CompileCache = None,
    require_parity: RequireParity = None,
    threads: Threads = None,
    verify: Verify = True,
    as_json: Json = False,
) -> None:
    """Answer a file of questions; print the scores of KILT's script and time, and write predictions if asked to."""
    from glimmer_export.calibration.questions import question_files, read_questions
    from glimmer_export.exporter.answering import answer_questions
    from glimmer_export.runtime import PassageTruncatedWarning, Session

    check_cache(compile_cache, bundle, store, *question_files(questions))
    rows = read_questions(questions, limit)
    with (
        Session.open(
            bundle, store, threads=threads, verify=verify, retrieval=retrieval, backend=backend,
            draft_tokens=draft_tokens, require_parity=required_parity(require_parity),
            compute_precision=compute_precision, compile_cache=compile_cache,
        ) as session,
        question_progress("Answering", len(rows)) as advance,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", PassageTruncatedWarning)  # counted in the report
        report = answer_questions(
            session, rows, given=passages == GIVEN, predictions=predictions, top_k=top_k, top_m=top_m,
            mass=mass, batch_size=batch_size, inputs=(bundle, store, *question_files(questions)), advance=advance,
        )
        lacking = _without_vector(session, retrieval)
    if as_json:
        print_json({**report.to_json(), **lacking})
    else:
        report.print(console())
        _warn_of_lacking(lacking)


def _without_vector(session: Session, retrieval: str) -> dict[str, int]:
    """How many passages vectors do not find, where it is searched by them."""
    if retrieval == "bm25" or session.store is None:
        return {}
    return {"passages_without_vector": session.store.num_without_vector}


def _warn_of_lacking(lacking: dict[str, int]) -> None:
    print_warnings(
        f"{count:,} passages of the store have no vector, and are not found by any; `memory index` makes them"
        for count in lacking.values() if count
    )


def _print_answer(result: Answer, choice: BackendChoice, retrieval: str) -> None:
    from rich.table import Table

    out = console()
    out.print(text("no passage found", "dim") if result.answer is None else bold(result.answer))
    if result.log_probability is not None:
        out.print(text(f"log-probability {result.log_probability:.3f}, decoder runs {result.decoder_runs}", "dim"))
    table = Table()
    found_by = retrieval.upper() if retrieval == "bm25" else retrieval
    for column in ("rank", "id", found_by, "score", "read", "title"):
        table.add_column(column, justify="right" if column in ("rank", found_by, "score") else "left")
    for rank, item in enumerate(result.passages, start=1):
        table.add_row(
            str(rank), "" if item.passage.id is None else visible(str(item.passage.id)), _number(item.retrieval_score),
            _number(item.score), "yes" if item.read else "", visible(item.passage.title),
        )
    if result.passages:
        out.print(table)
    if cut := sum(item.truncated for item in result.passages):
        out.print(f"{cut} of the passages were longer than passage_length and were cut")
    rounded = "" if choice.compute_precision == "fp32" else f" in {choice.compute_precision}"
    out.print(text(f"by {choice.name}{rounded}", "dim"))
    for note in choice.notes:
        out.print(text(note, "dim"))
    out.print(", ".join(f"{stage} {value:.1f} ms" for stage, value in result.milliseconds.items()))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
