"""What encoder and decoder stacks share in training: dropout around the blocks, and checkpointing of each block."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from glimmer_export.exporter.stages.layers import Dropout

__all__ = ["Stack"]


class Stack(nn.Module):
    """A run of blocks that may end in a `final_layer_norm`.

    With `gradient_checkpointing` a block's activations are computed again in the backward pass, random draws of its
    dropout included, instead of being kept. The two attributes have the names by which transformers sets them.
    """

    final_layer_norm: nn.Module
    gradient_checkpointing: bool = False
    _gradient_checkpointing_func: Callable[..., Tensor] = staticmethod(partial(checkpoint, use_reentrant=False))

    def __init__(self) -> None:
        super().__init__()
        self.dropout = Dropout()

    def run(self, block: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
        """`block(*inputs)`, checkpointed if asked for and if there is a gradient to compute."""
        if self.gradient_checkpointing and torch.is_grad_enabled():
            return self._gradient_checkpointing_func(block, *inputs)
        return block(*inputs)

    def finish(self, hidden_states: Tensor) -> Tensor:
        """The final norm and T5's dropout behind it, (..., d_model) -> the same; no norm, no dropout.

        A stack without one ends where T5's was cut, between two blocks, and there T5 drops nothing.
        """
        if not hasattr(self, "final_layer_norm"):
            return hidden_states
        normed: Tensor = self.dropout(self.final_layer_norm(hidden_states))
        return normed
