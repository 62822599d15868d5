"""What a demo checkpoint is worth: exact match, gold passage selected, and that it reads instead of guessing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from glimmer_export.exporter.answering import exact_match
from glimmer_export.exporter.demo.batches import Batch, encode_world
from glimmer_export.exporter.demo.world import World, withhold_gold

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from glimmer_export.exporter.stages import GlimmerModel

__all__ = ["Evaluation", "answer", "evaluate"]

EVALUATION_BATCH = 50


@dataclass(frozen=True)
class Evaluation:
    """Rates from 0 to 1 over the test questions.

    `em_withheld` is that without the gold passage; `gold_in_m` is 1 if nothing is selected.
    """

    num_questions: int
    em: float
    em_by_task: dict[str, float]
    gold_in_m: float
    em_withheld: float

    def as_dict(self) -> dict[str, Any]:
        """Plain numbers, for printing as JSON."""
        return asdict(self)


def evaluate(model: GlimmerModel, tokenizer: Tokenizer, world: World) -> Evaluation:
    """Answer every question of `world` greedily, with and without its gold passage."""
    right, selected = _results(model, tokenizer, world)
    by_task: dict[str, list[bool]] = defaultdict(list)
    for question, result in zip(world.questions, right, strict=True):
        by_task[question["task"]].append(result)
    guessed, _ = _results(model, tokenizer, withhold_gold(world, seed=0))
    return Evaluation(
        num_questions=len(right),
        em=_mean(right),
        em_by_task={task: _mean(results) for task, results in sorted(by_task.items())},
        gold_in_m=_mean(selected),
        em_withheld=_mean(guessed),
    )


@torch.no_grad()
def answer(model: GlimmerModel, batch: Batch) -> tuple[Tensor, Tensor]:
    """Greedy answers (b, max_new_tokens) and the places in k of the passages read (b, m), in retrieval order."""
    config = model.config
    size, num_passages, _ = batch.passage_ids.shape
    read, mask, _, kept, _ = model.encode_texts(*batch.texts, config.num_selected)
    if kept is None:
        kept = torch.arange(num_passages, device=read.device).expand(size, -1)
    tokens = torch.full((size, 1), config.decoder_start_token_id, device=read.device)
    ended = torch.zeros(size, 1, dtype=torch.bool, device=read.device)
    for _ in range(config.max_new_tokens):
        following = model.decode(tokens, read, mask)[:, -1:].argmax(-1)
        tokens = torch.cat([tokens, following.masked_fill(ended, config.pad_token_id)], dim=1)
        ended |= following == config.eos_token_id
        if bool(ended.all()):
            break
    return tokens[:, 1:], kept


def _results(model: GlimmerModel, tokenizer: Tokenizer, world: World) -> tuple[list[bool], list[bool]]:
    right: list[bool] = []
    selected: list[bool] = []
    device = model.shared.weight.device
    for batch in encode_world(world, tokenizer).ordered_batches(EVALUATION_BATCH):
        tokens, kept = answer(model, batch.to(device))
        for text in tokenizer.decode_batch(tokens.tolist(), skip_special_tokens=True):
            right.append(bool(exact_match(text, world.questions[len(right)]["answers"])))
        selected += (kept.cpu() == batch.gold[:, None]).any(1).tolist()
    return right, selected


def _mean(results: list[bool]) -> float:
    return sum(results) / len(results) if results else 0.0
