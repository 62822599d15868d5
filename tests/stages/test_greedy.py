"""Answers in batches against the reference, which answers one question at a time, padded, without a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
import torch

from glimmer_export.exporter.checkpoint import Checkpoint, read_checkpoint
from glimmer_export.exporter.parity.reference import TorchReference
from glimmer_export.exporter.stages import Masked, greedy_answers, model_from_checkpoint
from glimmer_export.exporter.tolerances import TOLERANCES, max_abs_error
from glimmer_export.runtime.text import TextEncoder
from tests.exported import CORPUS, QUESTIONS, VARIANTS, make_checkpoint
from tests.once import Once

NUM_PASSAGES = [5, 1, 4, 5, 2, 3, 5, 1]
"""Of each of QUESTIONS."""


def padded(texts: Sequence[Sequence[int]]) -> Masked:
    rows = [torch.tensor(list(text)) for text in texts]
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return Masked(ids, (torch.arange(ids.shape[1]) < lengths[:, None]).long())


def padded_passages(rows: Sequence[Sequence[Sequence[int]]]) -> Masked:
    most = max(map(len, rows))
    texts = [text for row in rows for text in (*row, *[[]] * (most - len(row)))]
    return Masked(*(values.unflatten(0, (len(rows), most)) for values in padded(texts)))


@pytest.fixture(scope="module")
def checkpoint(once: Once) -> Callable[[str], Checkpoint]:
    """A variant by name, read; nothing is exported for it."""

    def made(variant: str) -> Checkpoint:
        directory = once(f"{variant}, checkpoint", lambda folder: make_checkpoint(folder / "checkpoint", variant))
        return read_checkpoint(directory / "checkpoint")

    return cache(made)


def asked(checkpoint: Checkpoint) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Tokens of each question and of its passages."""
    assert checkpoint.tokenizer is not None
    shape = checkpoint.config.shape
    text = TextEncoder.open(checkpoint.tokenizer, shape)
    questions, passages = [], []
    for place, (question, count) in enumerate(zip(QUESTIONS, NUM_PASSAGES, strict=True)):
        found = CORPUS[3 * place : 3 * place + count]
        if shape.question_layout == "joined":
            passages.append([text.joined(question, item["title"], item["text"])[0] for item in found])
        else:
            passages.append([text.passage(item["title"], item["text"])[0] for item in found])
        questions.append(text.question(question))
    return questions, passages


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_batch_is_answered_as_each_alone(checkpoint: Callable[[str], Checkpoint], variant: str) -> None:
    made = checkpoint(variant)
    model, m = model_from_checkpoint(made), made.config.num_selected
    questions, passages = asked(made)
    found = greedy_answers(model, padded(questions), padded_passages(passages), m)
    reference = TorchReference(model)
    for row, (question, texts) in enumerate(zip(questions, passages, strict=True)):
        memory = reference.memory(texts) if made.config.shape.traits.has_memory else None
        wanted = reference.answer(question, texts, memory, m)
        assert found.tokens[row] == wanted.tokens
        if found.scores is None or found.selected is None:
            assert wanted.scores is None
            assert not made.config.shape.traits.selects
        else:
            scores = found.scores[row, : len(texts)].numpy()
            assert max_abs_error(scores, wanted.scores) <= TOLERANCES["fp32"].limit(wanted.scores)
            assert [place for place in found.selected[row].tolist() if place < len(texts)] == wanted.selected
    assert len({tuple(tokens) for tokens in found.tokens}) > 1


def test_memory_takes_the_place_of_texts(checkpoint: Callable[[str], Checkpoint]) -> None:
    made = checkpoint("glimmer")
    model = model_from_checkpoint(made)
    questions, passages = asked(made)
    texts, question = padded_passages(passages), padded(questions)
    states = model.encode_memory(texts.values.flatten(0, 1), texts.mask.flatten(0, 1))
    memory = Masked(states.unflatten(0, texts.mask.shape[:2]), texts.mask)
    of_texts, of_memory = (greedy_answers(model, question, read, 2) for read in (texts, memory))
    assert of_texts.tokens == of_memory.tokens
    assert of_texts.scores is not None
    np.testing.assert_array_equal(of_texts.scores, of_memory.scores)


def test_more_passages_may_be_read_than_the_model_selects(checkpoint: Callable[[str], Checkpoint]) -> None:
    made = checkpoint("glimmer")
    questions, passages = asked(made)
    found = greedy_answers(model_from_checkpoint(made), padded(questions), padded_passages(passages), 4)
    assert found.selected is not None
    assert found.selected.shape == (len(questions), 4)
