"""What models answer when they are evaluated: a bundle as its session, a checkpoint as its bundle in FP32."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from glimmer_export.calibration.questions import Question, given_passages
from glimmer_export.exporter.demo.world import CHECKPOINT, generate_split
from glimmer_export.exporter.evaluation.grid import Cell
from glimmer_export.exporter.evaluation.models import ModelOptions, open_models
from glimmer_export.exporter.evaluation.passages import Found, find_passages
from glimmer_export.exporter.evaluation.questions import TaskQuestion
from glimmer_export.exporter.memory import CorpusSource
from glimmer_export.exporter.memory.corpus_texts import open_corpus
from glimmer_export.exporter.tolerances import TOLERANCES, max_abs_error
from glimmer_export.runtime import Answer, Session
from tests.bundle_factory import write_rows
from tests.exported import CORPUS

CELLS = [Cell(5, 2), Cell(5, 1), Cell(2, 2), Cell(2, 1)]


def answers_of(
    path: Path, found: Found, cells: list[Cell], store: Path | None, batch_size: int = 3
) -> list[list[Answer]]:
    """One model's answers by cell."""
    (model,) = open_models([path])
    if store is None and model.kind == "bundle":
        model.find_builder([model])
    answers: list[list[Answer]] = [[] for _ in cells]
    with model.opened(found, ModelOptions(store, threads=1, backend="onnxruntime-cpu")) as answering:
        for start in range(0, len(found.asked), batch_size):
            batch = answering.answer(found.asked[start : start + batch_size], cells)
            for of_cell, replies in zip(answers, batch, strict=True):
                of_cell.extend(replies)
    return answers


def essence(answers: list[Answer]) -> list[tuple]:
    """What must be equal, however passages came: the tokens, what was read, and the error."""
    return [(answer.token_ids, answer.selected, type(answer.error)) for answer in answers]


def assert_alike(first: list[Answer], second: list[Answer]) -> None:
    assert essence(first) == essence(second)
    for one, other in zip(first, second, strict=True):
        scores, reference = (np.array(item.scores, np.float64) for item in (one, other))
        assert max_abs_error(scores, reference) <= TOLERANCES["fp32"].limit(reference)


@pytest.fixture
def found(glimmer, asked) -> Found:
    """Retrieved from the store, once, for the largest k; one question has no passage, and one is too long."""
    words = [*(item.question.question for item in asked), "nowhere", "w1 " * 40]
    rows = [TaskQuestion(replace(asked[0].question, question=text), "task") for text in words]
    return find_passages(rows, glimmer.session.store, 5, given=False, stored=True)


def test_a_session_that_is_given_what_was_found_answers_as_one_that_retrieves(glimmer, found):
    answers = answers_of(glimmer.bundle, found, CELLS, glimmer.store)
    for cell, replies in zip(CELLS, answers, strict=True):
        expected = glimmer.session.answer_many([item.question.question for item in found.asked], cell.k, cell.m)
        assert_alike(replies, expected)
    assert [len(reply.passages) for reply in answers[0][-2:]] == [0, 0]
    assert type(answers[0][-1].error).__name__ == "QuestionError"


def test_a_checkpoint_reads_a_store_as_its_bundle_does(glimmer, found):
    of_bundle, of_checkpoint = (
        answers_of(path, found, CELLS, glimmer.store) for path in (glimmer.bundle, glimmer.checkpoint)
    )
    for first, second in zip(of_bundle, of_checkpoint, strict=True):
        assert_alike(first, second)


def test_a_corpus_serves_both_without_a_store(glimmer, asked, found, tmp_path):
    """The bundle's store is built of the passages found alone; the checkpoint computes their memory, uncoded."""
    with open_corpus(CorpusSource.of(glimmer.corpus)) as corpus:
        taken = find_passages(found.asked, corpus, 5, given=False, stored=False)
    assert len(taken.texts) < len(CORPUS)
    of_store = answers_of(glimmer.bundle, found, CELLS, glimmer.store)
    for path in (glimmer.bundle, glimmer.checkpoint):
        answers = answers_of(path, replace(taken, folder=tmp_path), CELLS, None)
        assert [essence(replies) for replies in answers] == [essence(expected) for expected in of_store]


@pytest.mark.parametrize("beside_a_store", [True, False])
def test_passages_given_with_the_questions_are_read(glimmer, asked, tmp_path, beside_a_store):
    """Texts, and beside a store they go through its codec, as they do in a session."""
    with ExitStack() as opened:
        store = glimmer.session.store if beside_a_store else None
        taken = find_passages(asked, store, 5, given=True, stored=beside_a_store)
        session = glimmer.session if beside_a_store else opened.enter_context(Session.open(glimmer.bundle, threads=1))
        expected = session.answer_many(
            [item.question.question for item in asked], 3, 2,
            passages=[given_passages(item.question) for item in asked],
        )
        for path in (glimmer.bundle, glimmer.checkpoint):
            folder = tmp_path / path.name
            folder.mkdir()
            (replies,) = answers_of(
                path, replace(taken, folder=folder), [Cell(3, 2)], glimmer.store if beside_a_store else None
            )
            assert essence(replies) == essence(expected)


@pytest.mark.parametrize("variant", ["lumen", "memory_fid", "fid"])
def test_other_architectures_read_all_k(exported, asked, tmp_path, variant):
    made = exported(variant)
    with open_corpus(CorpusSource.of(made.corpus)) as corpus:
        taken = find_passages(asked, corpus, 5, given=False, stored=False)
    cells = [Cell(5, None), Cell(2, None)]
    (tmp_path / "folder").mkdir()
    of_bundle = answers_of(made.bundle, replace(taken, folder=tmp_path / "folder"), cells, None)
    of_checkpoint = answers_of(made.checkpoint, taken, cells, None)
    for cell, first, second in zip(cells, of_bundle, of_checkpoint, strict=True):
        assert essence(first) == essence(second)
        assert all(answer.selected == tuple(range(min(cell.k, len(answer.passages)))) for answer in first)


def test_the_demo_answers_alike_in_torch_and_in_its_bundle(demo_bundles, tmp_path):
    world = generate_split("test", 50, seed=3)
    corpus = write_rows(tmp_path / "corpus.jsonl", world.corpus)
    rows = [TaskQuestion(Question("q", item["question"], (), None, ()), "demo") for item in world.questions]
    with open_corpus(CorpusSource.of(corpus)) as source:
        taken = replace(find_passages(rows, source, 10, given=False, stored=False), folder=tmp_path)
    cells = [Cell(10, 3), Cell(10, 1)]
    of_bundle = answers_of(demo_bundles["exact algebra"], taken, cells, None, batch_size=25)
    of_checkpoint = answers_of(CHECKPOINT, taken, cells, None, batch_size=25)
    assert len({answer.token_ids for answer in of_bundle[0]}) > 40
    for first, second in zip(of_bundle, of_checkpoint, strict=True):
        assert essence(first) == essence(second)
