"""An evaluation from its request to its report: passages found once, each model asked in turn, all compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.answering.metrics import gold_answers
from glimmer_export.exporter.cost import question_cost
from glimmer_export.exporter.evaluation.bundle import BundleModel
from glimmer_export.exporter.evaluation.figures import has_gold, question_figures
from glimmer_export.exporter.evaluation.grid import Cell, Grid
from glimmer_export.exporter.evaluation.models import Answering, Model, ModelOptions, labels_of, open_models
from glimmer_export.exporter.evaluation.passages import Asked, Found, find_passages
from glimmer_export.exporter.evaluation.questions import TaskQuestion
from glimmer_export.exporter.evaluation.report import Answered, EvaluatedModel, EvaluationReport, report_from_figures
from glimmer_export.exporter.evaluation.work import EvaluationWork, Kept, Plan, questions_digest
from glimmer_export.exporter.memory import CorpusSource
from glimmer_export.exporter.memory.corpus_texts import open_corpus
from glimmer_export.exporter.report.origin import package_versions
from glimmer_export.runtime import Answer
from glimmer_export.runtime.candidates import PassageSource
from glimmer_export.runtime.contract import MANIFEST, OptionError, QuestionFileError, file_digest

__all__ = ["EvaluationRequest", "Progress", "evaluate", "no_progress"]

SPAN = 256
"""How many questions are asked and then kept, in whole batches."""
PACKAGES = ("glimmer-export", "numpy", "onnxruntime", "tokenizers", "torch")
Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Called with what a phase does and of how many questions; yields what to call with the number that came to be done."""


@contextmanager
def no_progress(_description: str, _total: int) -> Iterator[Callable[[int], None]]:
    """Tells nobody."""
    yield lambda _: None


@dataclass(frozen=True)
class EvaluationRequest:
    """What to evaluate, and how.

    Passages come from a `corpus`, or from the store of `options`, found by `retrieval`, which a corpus has by words
    alone; or they are those `given` with the questions, whose ids are then looked up in either.
    Answers are kept in the folder `work`, if it is named, until `remove_work`: the same request continues from them.
    """

    models: tuple[Path, ...]
    corpus: CorpusSource | None = None
    options: ModelOptions = field(default_factory=ModelOptions)
    grid: Grid = field(default_factory=Grid)
    given: bool = False
    retrieval: str = "bm25"
    work: Path | None = None


def evaluate(
    request: EvaluationRequest, questions: Sequence[TaskQuestion], progress: Progress = no_progress
) -> EvaluationReport:
    """Ask every model every question at every k and m of the grid, and compare with the first model.

    Raises, before anything is asked, OptionError for a request that says too much or too little, QuestionFileError for
    questions that nothing can be graded by, StoreError for a store that is not every model's, OutputError for a folder
    of work that is damaged or another evaluation's, and what reading models, corpus and store raises; and what
    answering raises.
    """
    _check(request)
    models = open_models(request.models)
    labels = labels_of(request.models)
    cells = _cells(models, request.grid)
    _check_memory(models, request.options.store)
    with ExitStack() as open_files:
        source, names_pages = _source(request, models[0], open_files)
        with progress("Finding passages", len(questions)) as advance:
            found = find_passages(
                questions, source, max(cell.k for of_model in cells for cell in of_model), given=request.given,
                stored=request.options.store is not None, names_pages=names_pages, advance=advance,
            )
        _check_gradable(found)
        folder = open_files.enter_context(TemporaryDirectory(prefix="glimmer-evaluate-"))
        found = replace(found, folder=Path(folder))
        work = None if request.work is None else EvaluationWork(request.work, _plan(request, models, cells, found))
        runs: list[Answered] = []
        figures: dict[str, list[NDArray[np.float64]]] = {}
        notes = _short(found, cells)
        for place, (model, label, of_model) in enumerate(zip(models, labels, cells, strict=True)):
            with progress(f"Asking {label}", len(found.asked) * len(of_model)) as advance:
                kept = None if work is None else work.of_model(place)
                answers = _ask(model, found, of_model, request.options, kept, advance)
            for cell, replies in zip(of_model, answers, strict=True):
                cost = question_cost(label, model.shape, model.forms, k=cell.k, m=cell.m)
                runs.append((label, cell, cost, *_unanswered(replies)))
                for task, values, noted in _by_task(found, replies):
                    figures.setdefault(task, []).append(values)
                    notes += noted
    return report_from_figures(
        [_named(model, label) for model, label in zip(models, labels, strict=True)],
        runs, {task: np.stack(values) for task, values in figures.items()}, passages=_distinct(found),
        passage_source="given" if request.given else request.retrieval, notes=list(dict.fromkeys(notes)),
    )


def _check(request: EvaluationRequest) -> None:
    """Raise OptionError for what does not go together."""
    store = request.options.store
    if request.corpus is not None and store is not None:
        raise OptionError(
            "evaluate", expected="--corpus or --store", found="both", fix="name one: a store has its corpus's texts"
        )
    if request.retrieval != "bm25" and (store is None or request.given):
        raise OptionError(
            f"option --retrieval {request.retrieval}", expected="a store that has vectors, to retrieve from",
            found="passages given with the questions" if request.given else "no store", fix="name such a --store",
        )


def _cells(models: Sequence[Model], grid: Grid) -> list[list[Cell]]:
    """Each model's; raises OptionError if values of m are given and none of the models ranks."""
    if grid.ms and not any(model.shape.traits.selects for model in models):
        raise OptionError(
            "option --grid", expected="values of k alone, as none of the models ranks its passages",
            found=f"m={','.join(map(str, grid.ms))}", fix="leave m out",
        )
    return [grid.cells(model.shape) for model in models]


def _check_memory(models: Sequence[Model], store: Path | None) -> None:
    """Raise StoreError for a store that is not every model's, BundleError for a bundle that can have none built."""
    for model in models:
        if store is not None:
            model.open_store(store, verify=False).close()
        elif isinstance(model, BundleModel):
            model.find_builder(models)


def _source(
    request: EvaluationRequest, first: Model, open_files: ExitStack
) -> tuple[PassageSource | None, bool]:
    """What passages are found in, open until `open_files` closes, and whether its passages may have pages."""
    if request.corpus is not None:
        return open_files.enter_context(open_corpus(request.corpus, searched=not request.given)), False
    if request.options.store is None:
        return None, False
    store = first.open_store(request.options.store, verify=request.options.verify, retrieval=request.retrieval)
    open_files.callback(store.close)
    return store, store.names_pages


def _check_gradable(found: Found) -> None:
    """Raise QuestionFileError if no passage was found, or if nothing could be measured by the answers."""
    expected = None
    if not any(item.candidates for item in found.asked):
        expected, fix = "passages for the questions", "name the corpus that the questions are about"
    elif not any(
        gold_answers(item.question.answers) or has_gold(item.question, names_pages=found.names_pages)
        for item in found.asked
    ):
        expected, fix = "answers or gold passages to grade by", "give questions that have them"
    if expected is not None:
        raise QuestionFileError(
            f"{len(found.asked)} questions", expected=expected, found="none for any of them", fix=fix
        )


def _ask(
    model: Model, found: Found, cells: Sequence[Cell], options: ModelOptions, kept: Kept | None,
    advance: Callable[[int], None],
) -> list[list[Answer]]:
    """One model's answers by cell, in the questions' order; it is loaded if there are spans that were not kept."""
    answers: list[list[Answer]] = [[] for _ in cells]
    answering: Answering | None = None
    step = max(1, SPAN // options.batch_size) * options.batch_size
    with ExitStack() as loaded:
        for first in range(0, len(found.asked), step):
            span = found.asked[first : first + step]
            of_span = None if kept is None else kept.read(first, span)
            if of_span is not None:
                advance(len(span) * len(cells))
            else:
                answering = answering or loaded.enter_context(model.opened(found, options))
                of_span = _ask_span(answering, span, cells, options.batch_size, advance)
                if kept is not None:
                    kept.write(first, of_span)
            _extend(answers, of_span)
    return answers


def _ask_span(
    answering: Answering, span: Sequence[Asked], cells: Sequence[Cell], batch_size: int, advance: Callable[[int], None]
) -> list[list[Answer]]:
    """The answers by cell to consecutive questions, whatever was asked before."""
    answering.forget()
    answers: list[list[Answer]] = [[] for _ in cells]
    for start in range(0, len(span), batch_size):
        batch = span[start : start + batch_size]
        _extend(answers, answering.answer(batch, cells))
        advance(len(batch) * len(cells))
    return answers


def _extend(answers: Sequence[list[Answer]], more: Sequence[Sequence[Answer]]) -> None:
    for of_cell, replies in zip(answers, more, strict=True):
        of_cell.extend(replies)


def _plan(request: EvaluationRequest, models: Sequence[Model], cells: Sequence[Sequence[Cell]], found: Found) -> Plan:
    options = request.options
    return Plan(
        models=tuple(model.digest for model in models), questions=questions_digest(found.asked),
        store=None if options.store is None else file_digest(options.store / MANIFEST),
        grid=tuple(str(cell) for of_model in cells for cell in of_model), batch_size=options.batch_size,
        threads=options.threads, backend=options.backend, compute_precision=options.compute_precision,
        versions=package_versions(PACKAGES),
    )


def _unanswered(answers: Sequence[Answer]) -> tuple[dict[str, int], int]:
    """How many questions could not be taken, by the error's name, and for how many no passage was found."""
    errors = Counter(type(answer.error).__name__ for answer in answers if answer.error is not None)
    return dict(errors), sum(answer.error is None and not answer.passages for answer in answers)


def _by_task(
    found: Found, answers: Sequence[Answer]
) -> Iterator[tuple[str, NDArray[np.float64], tuple[str, ...]]]:
    """Each task with its questions' figures, and what there are none of."""
    for task in sorted({item.task for item in found.asked}):
        places = [place for place, item in enumerate(found.asked) if item.task == task]
        values, notes = question_figures(
            [found.asked[place] for place in places], [answers[place] for place in places],
            names_pages=found.names_pages,
        )
        yield task, values, notes


def _distinct(found: Found) -> int:
    """How many different passages the questions have."""
    return len({
        candidate.passage if candidate.number is None else candidate.number
        for item in found.asked for candidate in item.candidates
    })  # fmt: skip


def _short(found: Found, cells: Sequence[Sequence[Cell]]) -> list[str]:
    """Values of k that no question has passages for: their figures are those of fewer."""
    most = max(len(item.candidates) for item in found.asked)
    beyond = sorted({cell.k for of_model in cells for cell in of_model if cell.k > most})
    return [f"k {', '.join(map(str, beyond))}: no question has more than {most} passages"] if beyond else []


def _named(model: Model, label: str) -> EvaluatedModel:
    own = Grid().cells(model.shape)[0]
    return EvaluatedModel(label, str(model.path), model.kind, model.shape.architecture, own)
