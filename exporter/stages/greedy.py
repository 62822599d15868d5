"""Greedy answers of the whole model, a batch of questions at a time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glimmer_export.exporter.stages.decoding import DecoderPrefill, DecoderStep
from glimmer_export.exporter.stages.model import Encoded, GlimmerModel, Masked

__all__ = ["GreedyAnswers", "greedy_answers"]


@dataclass(frozen=True)
class GreedyAnswers:
    """b answers: the `tokens` of each, EOS and what follows it left out.

    Where the architecture ranks: scores (b, k) float32, -inf for absent passages, and the places `selected` (b, m)
    int64 of the passages that were read, ascending, absent ones among them if a question has fewer than m.
    """

    tokens: list[list[int]]
    scores: Tensor | None
    selected: Tensor | None


@torch.no_grad()
def greedy_answers(
    model: GlimmerModel, question: Masked, passages: Masked, num_selected: int | None
) -> GreedyAnswers:
    """Answer b questions from k passages each, reading the best `num_selected` where the architecture ranks.

    question: ids (b, n_q), padded on the right. passages: ids (b, k, n_p), whose memory is encoded on the spot, or
    memory (b, k, n_p, d_model). Masks are 1 where a token counts. The mode of the model is the caller's.
    """
    encode = model.encode_texts if passages.values.dim() == 3 else model.encode
    encoded = encode(question, passages, num_selected)
    return GreedyAnswers(_decode(model, question, encoded), encoded.scores, encoded.selected)


def _decode(model: GlimmerModel, question: Masked, encoded: Encoded) -> list[list[int]]:
    """The tokens of each row, up to max_new_tokens.

    Cross-attention is absorbed: most answers are shorter than what projecting the states would pay for, and keys and
    values of every layer would take many times the memory.
    """
    config, states = model.config, encoded.states
    token = torch.full((len(states), 1), config.decoder_start_token_id, dtype=torch.int32, device=states.device)
    following = DecoderStep(model, absorbed=True, log_probability=False)
    if config.shape.traits.prefixes_decoder:
        ids, step = torch.cat([token, question.values.int()], dim=1), question.mask.sum(1).int()
        first = DecoderPrefill(model, absorbed=True, log_probability=False)
        token, _, *caches = first(ids, step, encoded.mask, states)
    else:
        size = (len(states), config.num_heads, config.shape.cache_length, config.d_kv)
        caches = [states.new_zeros(size)] * (2 * config.num_decoder_layers)
        step = torch.zeros(len(states), dtype=torch.int32, device=states.device)
        token, _, *caches = following(token, step, encoded.mask, *caches, states)
    chosen = [token]
    ended = token == config.eos_token_id
    while len(chosen) < config.max_new_tokens and not bool(ended.all()):
        step = step + 1
        token, _, *caches = following(token, step, encoded.mask, *caches, states)
        chosen.append(token)
        ended |= token == config.eos_token_id
    return [_before(config.eos_token_id, row) for row in torch.cat(chosen, dim=1).tolist()]


def _before(end: int, tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(end)] if end in tokens else tokens
