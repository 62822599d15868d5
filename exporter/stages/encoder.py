"""An encoder stack: any run of T5 encoder blocks, cut at any depth, with its own relative-position bias."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from glimmer_export.exporter.checkpoint.config import CheckpointConfig
from glimmer_export.exporter.stages.layers import Attention, Dropout, FeedForward, RMSNorm, masked_bias
from glimmer_export.exporter.stages.relative_bias import RelativeBias
from glimmer_export.exporter.stages.stack import Stack

__all__ = ["EncoderBlock", "EncoderStack", "FeedForwardLayer", "SelfAttentionLayer"]


class SelfAttentionLayer(nn.Module):
    """RMSNorm, self-attention, residual add."""

    def __init__(self, config: CheckpointConfig, relative_bias: RelativeBias | None) -> None:
        super().__init__()
        self.SelfAttention = Attention(config, relative_bias)
        self.layer_norm = RMSNorm(config)
        self.dropout = Dropout()

    def forward(self, hidden_states: Tensor, bias: Tensor) -> Tensor:
        """(r, n, d_model), bias (r, heads, n, n) -> (r, n, d_model)."""
        update: Tensor = self.dropout(self.SelfAttention(self.layer_norm(hidden_states), bias))
        return hidden_states + update


class FeedForwardLayer(nn.Module):
    """RMSNorm, feed-forward, residual add."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.DenseReluDense = FeedForward(config)
        self.layer_norm = RMSNorm(config)
        self.dropout = Dropout()

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., d_model) -> (..., d_model)."""
        update: Tensor = self.dropout(self.DenseReluDense(self.layer_norm(hidden_states)))
        return hidden_states + update


class EncoderBlock(nn.Module):
    """One encoder layer; `layer` is Hugging Face's name for its two halves."""

    def __init__(self, config: CheckpointConfig, relative_bias: RelativeBias | None) -> None:
        super().__init__()
        self.layer = nn.ModuleList([SelfAttentionLayer(config, relative_bias), FeedForwardLayer(config)])

    def forward(self, hidden_states: Tensor, bias: Tensor) -> Tensor:
        """(r, n, d_model), bias (r, heads, n, n) -> (r, n, d_model)."""
        attended = self.layer[0](hidden_states, bias)
        output: Tensor = self.layer[1](attended)
        return output


class EncoderStack(Stack):
    """`num_layers` encoder blocks (may be none) and, if asked for, the final RMSNorm."""

    def __init__(self, config: CheckpointConfig, num_layers: int, *, final_norm: bool) -> None:
        super().__init__()
        self.block = nn.ModuleList(
            EncoderBlock(config, RelativeBias(config, bidirectional=True) if index == 0 else None)
            for index in range(num_layers)
        )
        if final_norm:
            self.final_layer_norm = RMSNorm(config)

    @property
    def relative_bias(self) -> RelativeBias:
        """The stack's bias table, owned by its first block."""
        first = cast(SelfAttentionLayer, cast(EncoderBlock, self.block[0]).layer[0])
        return first.SelfAttention.relative_attention_bias

    def bias(self, positions: Tensor, attention_mask: Tensor) -> Tensor:
        """Attention bias of rows that share positions (n,) and differ in mask (r, n): (r, heads, n, n)."""
        by_position: Tensor = self.relative_bias(positions, positions)
        return masked_bias(by_position.unsqueeze(0), attention_mask[:, None, None, :] > 0)

    def forward(self, hidden_states: Tensor, bias: Tensor, layers: slice = slice(None)) -> Tensor:
        """Run the blocks that `layers` names, without the final norm: (r, n, d_model) -> (r, n, d_model)."""
        for block in list(self.block)[layers]:
            hidden_states = self.run(block, hidden_states, bias)
        return hidden_states
