"""Lazy stage A: the score reads one token, so stage A's last layer is computed for that token alone.

The layer is run in full later, for the m survivors, as the first of stage B; not so a separate reranker's, of which
nothing is used but the scores. For one token, attention is absorbed into the states it attends to: no key or value is
projected, `2 * heads * d_model` multiply-adds a token instead of a layer.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from glimmer_export.exporter.stages.codecs.decoder import scale_of
from glimmer_export.exporter.stages.encoder import EncoderBlock, FeedForwardLayer, SelfAttentionLayer
from glimmer_export.exporter.stages.layers import masked_bias
from glimmer_export.exporter.stages.model import GlimmerModel

__all__ = ["DeepLazyStageA", "LazyStageA", "Shortlist"]


class DeepLazyStageA(nn.Module):
    """Stage A of two layers or more: all but the last in full, the last for the scored token."""

    def __init__(self, model: GlimmerModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, question_states: Tensor, question_mask: Tensor, memory: Tensor, memory_mask: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        """(b, n_q, d), (b, n_q), (b, k, n_p, d), (b, k, n_p) -> scores (b, k), rerank_states (b, k, n_q + n_p, d).

        The rerank_states are those before the last layer, which is stage B's to run; a separate reranker has none.
        """
        model = self.model
        last = model.config.num_stage_a_layers - 1
        states = model.rank_layers(model.join(question_states, memory), question_mask, memory_mask, slice(0, last))
        attention, feed_forward = _layer(model, last)
        positions = torch.cat(model.live_positions(question_mask.shape[1], memory_mask.shape[2], states.device))
        keep = model.joint_mask(question_mask, memory_mask).flatten(0, 1)[:, None, None, :] > 0
        bias = masked_bias(_bias_of_first_token(model, positions)[:, None, :], keep)
        rows = states.flatten(0, 1)
        normed = attention.layer_norm(rows)
        # Indexed, as torch 2.11 does not know the length of a slice [:, :1] of what is question and passage together.
        query = normed[:, 0].unsqueeze(1)
        first = rows[:, 0].unsqueeze(1) + attention.SelfAttention.attend_absorbed(query, normed, bias)
        scored = feed_forward(first)[:, 0].unflatten(0, (states.shape[0], states.shape[1]))
        scores = model.scores(scored, memory_mask)
        return scores if model.config.separate_reranker else (scores, states)


class LazyStageA(nn.Module):
    """Stage A of one layer: one pass over the memory, and no hidden states leave it.

    The scored token stands in the question, which is the same for all k: its query and the question's part of the
    attention are computed once. Neither the memory's scale nor its norm is written out: the norm's weight is folded
    into the probes, both factors into the attention's scores and weights.
    """

    def __init__(self, model: GlimmerModel) -> None:
        super().__init__()
        self.model = model

    def head(self) -> nn.Module:
        """The score head."""
        return self.model.score

    def forward(
        self,
        question_states: Tensor,
        question_mask: Tensor,
        memory: Tensor,
        memory_scale: Tensor,
        memory_mask: Tensor,
    ) -> Tensor:
        """(b, n_q, d), (b, n_q), memory (b, k, n_p, d), its scale, mask (b, k, n_p) -> scores (b, k).

        The scale is one for all (1,), one a passage (b, k) or one a token (b, k, n_p).
        """
        model = self.model
        layer, feed_forward = _layer(model, 0)
        attention, norm = layer.SelfAttention, layer.layer_norm
        passages = memory.shape[1]
        of_question, of_passage = model.live_positions(question_mask.shape[1], memory_mask.shape[2], memory.device)
        question = norm(question_states)
        probes = attention.key_probes(question[:, :1]).transpose(0, 1)
        on_question = torch.matmul(probes, question.transpose(1, 2))
        on_question = masked_bias(on_question + _bias_of_first_token(model, of_question), question_mask[:, None] > 0)
        scale = scale_of(memory_scale)
        # A product, as ONNX Runtime takes three times as long to raise to a power.
        mean_square = (memory * memory).mean(-1, keepdim=True)
        factor = scale * torch.rsqrt(scale * (scale * mean_square) + norm.epsilon)
        on_memory = torch.matmul(memory.flatten(1, 2), (probes * norm.weight).transpose(1, 2))
        on_memory = (on_memory.unflatten(1, (passages, -1)) * factor).transpose(2, 3)
        on_memory = masked_bias(on_memory + _bias_of_first_token(model, of_passage), memory_mask[:, :, None] > 0)
        on_all = torch.cat([on_question.unsqueeze(1).expand(-1, passages, -1, -1), on_memory], dim=-1)
        weights = torch.softmax(on_all, dim=-1)
        num_question = question_mask.shape[1]
        # All passages in the rows of one product, or the question would be copied for each.
        weights_question = weights[..., :num_question].flatten(1, 2)
        context = torch.matmul(weights_question, question).unflatten(1, (passages, -1))
        weights_memory = weights[..., num_question:] * factor.transpose(2, 3)
        context = context + torch.matmul(weights_memory, memory) * norm.weight
        update = attention.output_from_context(context)
        return model.scores(feed_forward(question_states[:, :1] + update), memory_mask, self.head())


class Shortlist(LazyStageA):
    """What a cascade ranks all k passages by: the first layer of a deeper stage A, for one token, and its own head.

    Stage A runs that layer again for the passages that it keeps, in full: of a layer for one token nothing is left that
    it could go on from, and a whole layer for all k is what the cascade spares.
    """

    def head(self) -> nn.Module:
        """The shortlist's score head."""
        return self.model.shortlist_score


def _layer(model: GlimmerModel, index: int) -> tuple[SelfAttentionLayer, FeedForwardLayer]:
    block = cast(EncoderBlock, model.ranking_stack.block[index])
    return cast(SelfAttentionLayer, block.layer[0]), cast(FeedForwardLayer, block.layer[1])


def _bias_of_first_token(model: GlimmerModel, positions: Tensor) -> Tensor:
    """Bias of what the token at position 0 attends to: positions (n,) -> (heads, n)."""
    first = torch.zeros(1, dtype=torch.int32, device=positions.device)
    bias: Tensor = model.ranking_stack.relative_bias(first, positions)
    return bias.squeeze(1)
