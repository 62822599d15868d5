"""The layers of a T5 block under Hugging Face's weight names: RMSNorm, attention, feed-forward, dropout."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from glimmer_export.exporter.checkpoint.config import CheckpointConfig
from glimmer_export.exporter.stages.relative_bias import RelativeBias

__all__ = ["Attention", "Dropout", "FeedForward", "RMSNorm", "in_full_precision", "masked_bias"]


class Dropout(nn.Dropout):
    """T5's dropout. A model is made without: `GlimmerModel.set_dropout` gives all of them the rate."""

    def __init__(self) -> None:
        super().__init__(p=0.0)

    def forward(self, values: Tensor) -> Tensor:
        """(...) -> (...), and no operator for a tracer to see unless something is dropped."""
        return super().forward(values) if self.training and self.p else values


class RMSNorm(nn.Module):
    """T5's layer norm: scaled by the root mean square, no mean subtracted, no bias."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(config.d_model))
        self.epsilon = config.layer_norm_epsilon

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., d_model) -> (..., d_model), divided by a root: ONNX Runtime makes one operator of this form alone."""
        variance = hidden_states.square().mean(-1, keepdim=True)
        return self.weight * (hidden_states / torch.sqrt(variance + self.epsilon))


class Attention(nn.Module):
    """Multi-head attention as T5 has it: no bias terms and no 1/sqrt(d_kv) scaling."""

    def __init__(self, config: CheckpointConfig, relative_attention_bias: RelativeBias | None = None) -> None:
        super().__init__()
        self.num_heads, self.d_kv = config.num_heads, config.d_kv
        self.q = nn.Linear(config.d_model, config.inner_dim, bias=False)
        self.k = nn.Linear(config.d_model, config.inner_dim, bias=False)
        self.v = nn.Linear(config.d_model, config.inner_dim, bias=False)
        self.o = nn.Linear(config.inner_dim, config.d_model, bias=False)
        if relative_attention_bias is not None:
            self.relative_attention_bias = relative_attention_bias
        self.dropout = Dropout()

    def forward(self, hidden_states: Tensor, bias: Tensor) -> Tensor:
        """Self-attention: (r, n, d_model), bias (r or 1, heads, n, n) -> (r, n, d_model)."""
        return self.attend(self.query(hidden_states), *self.key_value(hidden_states), bias)

    def query(self, hidden_states: Tensor) -> Tensor:
        """(r, n, d_model) -> (r, heads, n, d_kv)."""
        return self._split_heads(self.q(hidden_states))

    def key_value(self, hidden_states: Tensor) -> tuple[Tensor, Tensor]:
        """(r, n, d_model) -> keys and values, each (r, heads, n, d_kv)."""
        return self._split_heads(self.k(hidden_states)), self._split_heads(self.v(hidden_states))

    def attend(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
        """Queries (r, heads, q, d_kv) over keys and values (r, heads, n, d_kv) -> (r, q, d_model)."""
        weights = torch.softmax(torch.matmul(query, key.transpose(-1, -2)) + bias, dim=-1)
        context = torch.matmul(self.dropout(weights), value).transpose(1, 2)
        output: Tensor = self.o(context.flatten(2))
        return output

    def attend_absorbed(self, hidden_states: Tensor, states: Tensor, bias: Tensor) -> Tensor:
        """What the queries of (r, q, d_model) read in states (r, n, d_model), never projected -> (r, q, d_model).

        The same as `attend` over their keys and values: `q.K_j = (W_k^T q).x_j`, `sum_j a_j V_j = W_v sum_j a_j x_j`.
        Graphs alone read so, and training never: nothing is dropped.
        """
        rows, of_heads = hidden_states.shape[:2], (hidden_states.shape[1], self.num_heads)
        probes = self.key_probes(hidden_states).transpose(0, 1).unflatten(0, rows).flatten(1, 2)
        scores = torch.matmul(probes, states.transpose(-1, -2)).unflatten(1, of_heads)
        weights = torch.softmax(scores + bias.transpose(1, 2), dim=-1)
        context = torch.matmul(weights.flatten(1, 2), states).unflatten(1, of_heads)
        return self.output_from_context(context)

    def key_probes(self, hidden_states: Tensor) -> Tensor:
        """W_k^T q of each head: (r, q, d_model) -> (heads, r * q, d_model), to be met with states, not keys.

        Heads come first, all rows of one in a single matrix: TensorRT copies a weight that each head has for itself
        once for every row that stands in front of the heads.
        """
        query = self.q(hidden_states).flatten(0, 1).unflatten(-1, (self.num_heads, self.d_kv)).transpose(0, 1)
        return torch.matmul(query, self.k.weight.unflatten(0, (self.num_heads, self.d_kv)))

    def output_from_context(self, context: Tensor) -> Tensor:
        """Mean states of each head (r, q, heads, d_model) -> through W_v and W_o, (r, q, d_model); heads first too."""
        by_head = self.v.weight.unflatten(0, (self.num_heads, self.d_kv)).transpose(1, 2)
        values = torch.matmul(context.flatten(0, 1).transpose(0, 1), by_head).transpose(0, 1)
        output: Tensor = self.o(values.reshape(*context.shape[:2], self.num_heads * self.d_kv))
        return output

    def _split_heads(self, projected: Tensor) -> Tensor:
        heads: Tensor = projected.unflatten(-1, (self.num_heads, self.d_kv)).transpose(1, 2)
        return heads


class FeedForward(nn.Module):
    """T5's feed-forward layer: ReLU (v1.0), or GELU in its tanh form gated by a second projection (v1.1)."""

    def __init__(self, config: CheckpointConfig) -> None:
        super().__init__()
        self.gated = config.feed_forward_proj == "gated-gelu"
        if self.gated:
            self.wi_0 = nn.Linear(config.d_model, config.d_ff, bias=False)
            self.wi_1 = nn.Linear(config.d_model, config.d_ff, bias=False)
        else:
            self.wi = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)
        self.dropout = Dropout()

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(..., d_model) -> (..., d_model), under autocast in FP32."""
        if self.gated:
            product = nn.functional.gelu(self.wi_0(hidden_states), approximate="tanh") * self.wi_1(hidden_states)
        else:
            product = nn.functional.relu(self.wi(hidden_states))
        return in_full_precision(self.wo, self.dropout(product))


def in_full_precision(layer: nn.Module, values: Tensor) -> Tensor:
    """`layer(values)` in FP32 even under autocast, if the layer's weights are.

    T5's `wo` adds the largest numbers to the residual stream, and overflows or loses the small ones in half precision;
    Hugging Face keeps its weights in FP32 too.
    """
    device = values.device.type
    if torch.is_autocast_enabled(device) and all(weight.dtype == torch.float32 for weight in layer.parameters()):
        with torch.autocast(device, enabled=False):
            return cast(Tensor, layer(values.float()))
    return cast(Tensor, layer(values))


def masked_bias(bias: Tensor, keep: Tensor) -> Tensor:
    """Replace the bias where nothing may be attended by the lowest finite number.

    Finite, so that a row with nothing to attend gives a mean instead of NaN. `keep` (bool) broadcasts to `bias`.
    """
    return torch.where(keep, bias, torch.finfo(bias.dtype).min)
