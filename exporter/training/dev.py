"""Greedy answers of the torch model, and how many of the dev rows they get right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor

from glimmer_export.exporter.answering.metrics import exact_match
from glimmer_export.exporter.stages.model import GlimmerModel
from glimmer_export.exporter.training.batch import Batch
from glimmer_export.exporter.training.loss import evaluation_mode

if TYPE_CHECKING:
    from glimmer_export.runtime.text import TextEncoder

__all__ = ["DevRows", "Graded", "greedy_answers", "graded_answers"]


class DevRows(Protocol):
    """Rows to grade by, in their order."""

    def batches(self, size: int) -> Iterable[tuple[Batch, Sequence[Sequence[str]]]]:
        """Batches of `size` rows, and each row's answers."""
        ...


@dataclass(frozen=True)
class Graded:
    """How many rows were answered, answered as a gold is (KILT's exact match), and had a gold passage read."""

    rows: int
    exact: int
    gold_read: int


@torch.no_grad()
def greedy_answers(model: GlimmerModel, batch: Batch, num_selected: int | None = None) -> tuple[Tensor, Tensor]:
    """Tokens (b, at most max_new_tokens), padded behind EOS, and the places in k of the passages read (b, m).

    In evaluation mode; the decoder has no cache, so that a step runs over all tokens so far. `num_selected` is m, by
    default the config's.
    """
    with evaluation_mode(model):
        encode = model.encode if batch.passages.values.is_floating_point() else model.encode_texts
        encoded = encode(batch.question, batch.passages, num_selected or model.config.num_selected)
        selected = encoded.selected
        if selected is None:
            selected = torch.arange(batch.passages.mask.shape[1], device=batch.labels.device).expand(len(batch), -1)
        return _decoded(model, batch, encoded.states, encoded.mask), selected


def graded_answers(
    model: GlimmerModel, rows: DevRows, text: TextEncoder, *, size: int, num_selected: int | None = None,
    part: tuple[int, int] = (0, 1),
) -> Graded:
    """Answer the rows in batches of `size`; of several processes, `part` (rank, size) takes every size-th batch."""
    count = exact = read = 0
    device = model.shared.weight.device
    rank, processes = part
    for index, (batch, answers) in enumerate(rows.batches(size)):
        if index % processes != rank:
            continue
        on_device = batch.to(device)
        tokens, selected = greedy_answers(model, on_device, num_selected)
        special = {model.config.pad_token_id, model.config.eos_token_id}
        said = [text.decode([token for token in row if token not in special]) for row in tokens.tolist()]
        exact += sum(int(exact_match(each, golds)) for each, golds in zip(said, answers, strict=True))
        read += int(on_device.gold.gather(1, selected).any(1).sum())
        count += len(batch)
    return Graded(count, exact, read)


def _decoded(model: GlimmerModel, batch: Batch, states: Tensor, mask: Tensor) -> Tensor:
    """One token a row at a time. A question that is the decoder's prefix stands before the answer, without padding."""
    config = model.config
    key_values = model.cross_key_values(states)
    start = batch.labels.new_full((len(batch), 1), config.decoder_start_token_id)
    before, lengths = start, batch.labels.new_ones(len(batch))
    if config.shape.traits.prefixes_decoder:
        before = torch.cat([start, batch.question.values * batch.question.mask], 1)
        lengths = lengths + batch.question.mask.sum(1)
    room = before.new_full((len(batch), config.max_new_tokens), config.pad_token_id)
    tokens = torch.cat([before, room], 1)
    rows = torch.arange(len(batch), device=tokens.device)
    answer = torch.full_like(room, config.pad_token_id)
    ended = torch.zeros(len(batch), dtype=torch.bool, device=tokens.device)
    for step in range(config.max_new_tokens):
        used = int(lengths.max()) + step
        logits = model.decode_over(tokens[:, :used], key_values, mask)
        following = logits[rows, lengths + step - 1].argmax(-1).masked_fill(ended, config.pad_token_id)
        answer[:, step] = following
        tokens[rows, lengths + step] = following
        ended |= following == config.eos_token_id
        if bool(ended.all()):
            break
    return answer
