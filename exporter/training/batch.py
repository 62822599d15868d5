"""What one step of a training reads, as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from glimmer_export.exporter.stages import Masked

__all__ = ["IGNORED", "Batch", "Ids", "collate", "pad_passages", "pad_texts"]

IGNORED = -100
"""The label where there is no answer token, which torch's cross-entropy leaves out by default."""
Ids = NDArray[np.int32]
"""Token ids of a text, (tokens,)."""


@dataclass(frozen=True)
class Batch:
    """b questions, each with up to k passages, all padded on the right to the longest of the batch.

    question: ids (b, n_q) int64 and mask (b, n_q) int64. passages: ids (b, k, n_p) int64, or memory
    (b, k, n_p, d_model) float32 that a store holds, and mask (b, k, n_p) int64. If a question has fewer than k
    passages, the mask of those absent is all 0. If a model joins them in one text, `passages` holds the question too.

    labels (b, t) int64 are the tokens of one answer, EOS included, `IGNORED` where there is none. gold (b, k) bool
    marks the passages that are known to be relevant.
    """

    question: Masked
    passages: Masked
    labels: Tensor
    gold: Tensor

    def __len__(self) -> int:
        """The number of questions b."""
        return len(self.labels)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on `device`."""

        def moved(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=True)

        question, passages = (Masked(*map(moved, pair)) for pair in (self.question, self.passages))
        return Batch(question, passages, moved(self.labels), moved(self.gold))


def collate(
    questions: Sequence[Ids], passages: Masked, answers: Sequence[Ids], gold: Sequence[Sequence[bool]]
) -> Batch:
    """A batch of b questions and answers, with passages of `pad_passages`, or their memory; gold is at most k long."""
    labels, mask = pad_texts(answers)
    marks = torch.zeros(passages.mask.shape[:2], dtype=torch.bool)
    for places, row in zip(marks, gold, strict=True):
        places[: len(row)] = torch.tensor(row, dtype=torch.bool)
    return Batch(pad_texts(questions), passages, labels.masked_fill(mask == 0, IGNORED), marks)


def pad_texts(texts: Sequence[Ids]) -> Masked:
    """Texts of token ids, padded to the longest with 0: ids and mask, (rows, tokens) int64."""
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    mask = np.arange(max(1, int(lengths.max(initial=0)))) < lengths[:, None]
    ids = np.zeros(mask.shape, np.int64)
    ids[mask] = np.concatenate(texts) if texts else ()
    return Masked(torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64)))


def pad_passages(rows: Sequence[Sequence[Ids]]) -> Masked:
    """Texts of each row's passages, padded to the longest and the most: ids and mask, (b, k, n_p) int64."""
    most = max(map(len, rows))
    absent = np.zeros(0, np.int32)
    texts = [text for row in rows for text in (*row, *[absent] * (most - len(row)))]
    return Masked(*(tensor.unflatten(0, (len(rows), most)) for tensor in pad_texts(texts)))
