"""Batches: what is padded, what is masked, and that nothing else is changed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glimmer_export.exporter.training.batch import IGNORED, Batch, collate, pad_passages, pad_texts


def ids(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@pytest.fixture
def batch() -> Batch:
    passages = pad_passages([[ids(1, 2, 3), ids(4)], [ids(5, 6)]])
    return collate([ids(7), ids(8, 9)], passages, [ids(3, 1), ids(1)], [[False, True], []])


def test_texts_are_padded_to_the_longest_of_the_batch(batch):
    assert batch.question.values.tolist() == [[7, 0], [8, 9]]
    assert batch.question.mask.tolist() == [[1, 0], [1, 1]]
    assert batch.passages.values.tolist() == [[[1, 2, 3], [4, 0, 0]], [[5, 6, 0], [0, 0, 0]]]
    assert batch.passages.mask.tolist() == [[[1, 1, 1], [1, 0, 0]], [[1, 1, 0], [0, 0, 0]]]
    assert len(batch) == 2


def test_labels_are_ignored_where_there_is_no_answer_token(batch):
    assert batch.labels.tolist() == [[3, 1], [1, IGNORED]]
    assert torch.nn.CrossEntropyLoss().ignore_index == IGNORED


def test_a_passage_that_is_not_there_is_not_gold(batch):
    assert batch.gold.tolist() == [[False, True], [False, False]]


def test_dtypes(batch):
    for pair in (batch.question, batch.passages):
        assert {tensor.dtype for tensor in pair} == {torch.int64}
    assert (batch.labels.dtype, batch.gold.dtype) == (torch.int64, torch.bool)


def test_a_batch_is_moved_whole(batch):
    moved = batch.to("meta")
    tensors = (*moved.question, *moved.passages, moved.labels, moved.gold)
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_a_token_of_the_padding_id_counts():
    assert pad_texts([ids(0, 0), ids(5)]).mask.tolist() == [[1, 1], [1, 0]]
