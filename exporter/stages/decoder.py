"""The decoder stack: T5 decoder blocks that attend to the concatenated passages (fusion-in-decoder)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

from torch import Tensor, nn

from glimmer_export.exporter.checkpoint.config import CheckpointConfig
from glimmer_export.exporter.stages.encoder import FeedForwardLayer, SelfAttentionLayer
from glimmer_export.exporter.stages.layers import Attention, Dropout, RMSNorm
from glimmer_export.exporter.stages.relative_bias import RelativeBias
from glimmer_export.exporter.stages.stack import Stack

__all__ = ["CrossAttentionLayer", "DecoderBlock", "DecoderStack"]


class CrossAttentionLayer(nn.Module):
    """RMSNorm, attention over the encoder's states, residual add."""

    def __init__(self, config: CheckpointConfig, relative_bias: RelativeBias | None) -> None:
        super().__init__()
        self.EncDecAttention = Attention(config, relative_bias)
        self.layer_norm = RMSNorm(config)
        self.dropout = Dropout()

    def forward(self, hidden_states: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """(b, t, d_model) over keys and values (b, heads, s, d_kv), `GlimmerModel.cross_bias` -> (b, t, d_model)."""
        query = self.EncDecAttention.query(self.layer_norm(hidden_states))
        update: Tensor = self.dropout(self.EncDecAttention.attend(query, key, value, bias))
        return hidden_states + update

    def absorbed(self, hidden_states: Tensor, encoder_hidden_states: Tensor, bias: Tensor) -> Tensor:
        """The same over the encoder's states (b, s, d_model) themselves."""
        normed = self.layer_norm(hidden_states)
        return hidden_states + self.EncDecAttention.attend_absorbed(normed, encoder_hidden_states, bias)


class DecoderBlock(nn.Module):
    """One decoder layer: self-attention, cross-attention, feed-forward."""

    def __init__(
        self, config: CheckpointConfig, relative_bias: RelativeBias | None, cross_relative_bias: RelativeBias | None
    ) -> None:
        super().__init__()
        self.layer = nn.ModuleList([
            SelfAttentionLayer(config, relative_bias), CrossAttentionLayer(config, cross_relative_bias),
            FeedForwardLayer(config),
        ])

    def forward(
        self, hidden_states: Tensor, encoder_hidden_states: Tensor, self_bias: Tensor, cross_bias: Tensor
    ) -> Tensor:
        """(b, t, d_model) over the encoder's states (b, s, d_model) -> (b, t, d_model)."""
        key_value = self.cross_attention.EncDecAttention.key_value(encoder_hidden_states)
        return self.over(hidden_states, *key_value, self_bias, cross_bias)

    def over(self, hidden_states: Tensor, key: Tensor, value: Tensor, self_bias: Tensor, cross_bias: Tensor) -> Tensor:
        """The same over keys and values (b, heads, s, d_kv) of those states that are at hand."""
        attended: Tensor = self.self_attention(hidden_states, self_bias)
        output: Tensor = self.feed_forward(self.cross_attention(attended, key, value, cross_bias))
        return output

    @property
    def self_attention(self) -> SelfAttentionLayer:
        """The block's first layer."""
        return cast(SelfAttentionLayer, self.layer[0])

    @property
    def cross_attention(self) -> CrossAttentionLayer:
        """The block's second layer."""
        return cast(CrossAttentionLayer, self.layer[1])

    @property
    def feed_forward(self) -> FeedForwardLayer:
        """The block's third layer."""
        return cast(FeedForwardLayer, self.layer[2])


class DecoderStack(Stack):
    """The decoder's blocks and final RMSNorm."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        first: tuple[RelativeBias | None, RelativeBias | None] = (RelativeBias(config, bidirectional=False), None)
        if config.cross_attention_bias:
            # transformers 3.0.2 counts here as in the self-attention: all keys from the query's position on are alike.
            first = (first[0], RelativeBias(config, bidirectional=False))
        self.block = nn.ModuleList(
            DecoderBlock(config, *(first if index == 0 else (None, None))) for index in range(config.num_decoder_layers)
        )
        self.final_layer_norm = RMSNorm(config)

    @property
    def relative_bias(self) -> RelativeBias:
        """The stack's bias table, owned by its first block."""
        return next(self.blocks()).self_attention.SelfAttention.relative_attention_bias

    @property
    def cross_relative_bias(self) -> RelativeBias:
        """The cross-attention's table, likewise; only with `cross_attention_bias`."""
        return next(self.blocks()).cross_attention.EncDecAttention.relative_attention_bias

    def blocks(self) -> Iterator[DecoderBlock]:
        """The blocks, first to last."""
        return (cast(DecoderBlock, block) for block in self.block)
