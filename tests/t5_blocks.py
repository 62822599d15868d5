"""Hugging Face's own T5 encoder blocks, driven by hand: the reference for an encoder cut into parts."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers.models.t5.modeling_t5 import T5Stack

__all__ = ["block_diagonal", "fully_connected", "run_blocks"]


def run_blocks(stack: T5Stack, hidden_states: Tensor, allowed: Tensor, layers: slice) -> Tensor:
    """Run some blocks, without the final norm: (r, n, d_model), allowed (r, n, n) bool -> (r, n, d_model).

    Positions are 0 to n - 1. Every block gets the bias that the stack's first block computes, as in a whole stack.
    """
    length = hidden_states.shape[1]
    bias = stack.block[0].layer[0].SelfAttention.compute_bias(length, length)
    bias = bias + torch.zeros(allowed.shape).masked_fill(~allowed, torch.finfo(torch.float32).min)[:, None]
    for block in stack.block[layers]:
        hidden_states = block(hidden_states, position_bias=bias, cache_position=torch.arange(length))[0]
    return hidden_states


def block_diagonal(mask: Tensor, boundary: int) -> Tensor:
    """Tokens before `boundary` see each other, and those behind it each other: mask (r, n) -> (r, n, n) bool."""
    behind = torch.arange(mask.shape[1]) >= boundary
    return (behind[:, None] == behind[None, :]) & fully_connected(mask)


def fully_connected(mask: Tensor) -> Tensor:
    """Every token sees every other that is kept: mask (r, n) -> (r, n, n) bool."""
    return (mask[:, None, :] > 0).expand(-1, mask.shape[1], -1)
