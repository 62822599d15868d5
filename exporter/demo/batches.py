"""A world as tensors, and the training batches drawn from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from glimmer_export.exporter.demo.tokenizer import PAD_ID
from glimmer_export.exporter.demo.world import NUM_CONTEXT, Question, World
from glimmer_export.exporter.stages import Masked

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["Batch", "EncodedWorld", "encode_world"]


NOT_THERE = -1


@dataclass(frozen=True)
class Batch:
    """b questions with k passages each; ids and masks are int64, padded with `PAD_ID`.

    question_ids (b, n_q), passage_ids (b, k, n_p), labels (b, t) with EOS, gold (b,): the gold passage's place in k,
    -1 if it was withheld.
    """

    question_ids: Tensor
    passage_ids: Tensor
    labels: Tensor
    gold: Tensor

    @property
    def question_mask(self) -> Tensor:
        """(b, n_q), 1 where a token counts."""
        return (self.question_ids != PAD_ID).long()

    @property
    def passage_mask(self) -> Tensor:
        """(b, k, n_p), 1 where a token counts."""
        return (self.passage_ids != PAD_ID).long()

    @property
    def texts(self) -> tuple[Masked, Masked]:
        """Question and passages with their masks."""
        return Masked(self.question_ids, self.question_mask), Masked(self.passage_ids, self.passage_mask)

    def to(self, device: torch.device) -> Batch:
        """The same batch on `device`."""
        return Batch(*(getattr(self, field.name).to(device, non_blocking=True) for field in fields(self)))


@dataclass(frozen=True)
class EncodedWorld:
    """Token ids of a world: passages (P, n_p), questions (Q, n_q), answers (Q, t).

    context (Q, NUM_CONTEXT) holds rows of `passages`, gold (Q,) a place in the context.
    """

    passages: Tensor
    questions: Tensor
    answers: Tensor
    context: Tensor
    gold: Tensor

    def batch(self, rows: Tensor, places: Tensor, gold: Tensor) -> Batch:
        """Questions `rows` (b,) with the passages at `places` (b, k) of their context; `gold` (b,) counts within k."""
        passages = self.passages[self.context[rows].gather(1, places)]
        return Batch(_trim(self.questions[rows]), _trim(passages), _trim(self.answers[rows]), gold)

    def shuffled_batches(self, size: int, num_passages: int, generator: torch.Generator) -> Iterator[Batch]:
        """Every question once (less a remainder), each with its gold passage and `num_passages - 1` distractors.

        The passages keep the order of the context.
        """
        order = torch.randperm(len(self.questions), generator=generator)
        for rows in order.split(size):
            if len(rows) < size:
                return
            # Gold draws zero, the lowest number, so it is always among the kept.
            draw = torch.rand(size, NUM_CONTEXT, generator=generator)
            draw.scatter_(1, self.gold[rows, None], 0.0)
            places = draw.argsort(1)[:, :num_passages].sort(1).values
            gold = (places == self.gold[rows, None]).long().argmax(1)
            yield self.batch(rows, places, gold)

    def ordered_batches(self, size: int) -> Iterator[Batch]:
        """Every question in its order with its whole context."""
        for rows in torch.arange(len(self.questions)).split(size):
            places = torch.arange(NUM_CONTEXT).expand(len(rows), -1)
            yield self.batch(rows, places, self.gold[rows])


def encode_world(world: World, tokenizer: Tokenizer) -> EncodedWorld:
    """Tokenize a world's passages (`title text`), questions and first answers, each ending in EOS."""
    context = torch.tensor([question["ctx_ids"] for question in world.questions])
    gold = torch.tensor([_gold_place(question) for question in world.questions])
    return EncodedWorld(
        passages=_encode(tokenizer, [f"{passage['title']} {passage['text']}" for passage in world.corpus]),
        questions=_encode(tokenizer, [question["question"] for question in world.questions]),
        answers=_encode(tokenizer, [question["answers"][0] for question in world.questions]),
        context=context,
        gold=gold,
    )


def _gold_place(question: Question) -> int:
    return question["ctx_ids"].index(question["gold_ids"][0]) if question["gold_ids"] else NOT_THERE


def _encode(tokenizer: Tokenizer, texts: list[str]) -> Tensor:
    rows = [torch.tensor(encoding.ids) for encoding in tokenizer.encode_batch(texts)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=PAD_ID)


def _trim(ids: Tensor) -> Tensor:
    """Cut the columns that are padding in every row."""
    used = (ids != PAD_ID).flatten(0, -2).any(0)
    return ids[..., : int(used.sum())]
