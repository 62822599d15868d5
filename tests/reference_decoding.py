"""Greedy decoding with the torch model, every step from the start: slow, and too simple to be wrong."""

from __future__ import annotations

import torch
from torch import Tensor

from glimmer_export.exporter.stages import GlimmerModel

__all__ = ["greedy_tokens"]


def greedy_tokens(model: GlimmerModel, states: Tensor, mask: Tensor, steps: int) -> list[list[int]]:
    """Tokens for states (b, s, d_model) and mask (b, s), from the start token on; a row that has ended is padded."""
    config = model.config
    tokens = torch.full((states.shape[0], 1), config.decoder_start_token_id)
    ended = torch.zeros(states.shape[0], dtype=torch.bool)
    for _ in range(steps):
        best = model.decode(tokens, states, mask)[:, -1].argmax(-1)
        best = torch.where(ended, config.pad_token_id, best)
        tokens = torch.cat([tokens, best[:, None]], dim=1)
        ended |= best == config.eos_token_id
        if bool(ended.all()):
            break
    return tokens.tolist()
