"""The stages that encode: passages, the question, both together, and the live layers over memory."""

from __future__ import annotations

from torch import Tensor, nn

from glimmer_export.exporter.stages.codecs.decoder import take_selected
from glimmer_export.exporter.stages.model import GlimmerModel

__all__ = [
    "ConditionedStageB", "JoinedEncoder", "LiveStageA", "MemoryEncoder", "MemoryStageB", "QuestionEncoder",
    "SelectingStageB",
]  # fmt: skip


class MemoryEncoder(nn.Module):
    """The memory encoder (GLIMMER paper, section 3.1); it encodes questions too unless they have their own."""

    def __init__(self, model: GlimmerModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(b, n) int32 ids and mask -> hidden_states (b, n, d_model)."""
        return self.model.encode_memory(input_ids, attention_mask)


class QuestionEncoder(nn.Module):
    """The separate question encoder (LUMEN paper, section 3)."""

    def __init__(self, model: GlimmerModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """(b, n) int32 ids and mask -> hidden_states (b, n, d_model)."""
        return self.model.encode_question(input_ids, attention_mask)


class JoinedEncoder(nn.Module):
    """FiD's encoder: each passage with the question in front."""

    def __init__(self, model: GlimmerModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(b, k, n) int32 ids and mask -> encoder_hidden_states (b, k * n, d_model) and their mask (b, k * n)."""
        states = self.model.encode_joined(input_ids, attention_mask)
        return states.flatten(1, 2), attention_mask.flatten(1)


class LiveStageA(nn.Module):
    """Stage A in full, with the score head (GLIMMER paper, section 3.2)."""

    def __init__(self, model: GlimmerModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, question_states: Tensor, question_mask: Tensor, memory: Tensor, memory_mask: Tensor
    ) -> Tensor | tuple[Tensor, Tensor]:
        """(b, n_q, d), (b, n_q), (b, k, n_p, d), (b, k, n_p) -> scores (b, k), rerank_states (b, k, n_q + n_p, d).

        A separate reranker has no rerank_states.
        """
        scores, states = self.model.stage_a(question_states, question_mask, memory, memory_mask)
        return scores if self.model.config.separate_reranker else (scores, states)


class SelectingStageB(nn.Module):
    """Stage B of GLIMMER: gathers the selected passages' states, so that the host need not see them.

    It begins with live layer `first_layer`: the one behind stage A, or stage A's last if that was lazy.
    """

    def __init__(self, model: GlimmerModel, first_layer: int) -> None:
        super().__init__()
        self.model = model
        self.first_layer = first_layer

    def forward(
        self, rerank_states: Tensor, question_mask: Tensor, memory_mask: Tensor, selected: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Stage A's states, masks of all k, selected (b, m) int32 -> states (b, m * n, d) and mask (b, m * n)."""
        states, mask = take_selected(selected, rerank_states, memory_mask)
        return self.model.read(states, question_mask, mask, self.first_layer)


class ConditionedStageB(nn.Module):
    """The whole live encoder: passages conditioned on the question (LUMEN paper, section 3).

    LUMEN runs it on all k; GLIMMER on the m that were selected, if its one-layer stage A was lazy or its reranker is
    separate.
    """

    def __init__(self, model: GlimmerModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, question_states: Tensor, question_mask: Tensor, memory: Tensor, memory_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(b, n_q, d), (b, n_q), (b, k, n_p, d), (b, k, n_p) -> states (b, k * n, d) and mask (b, k * n)."""
        states = self.model.join(question_states, memory)
        return self.model.read(states, question_mask, memory_mask, first_layer=0)


class MemoryStageB(nn.Module):
    """MemoryFiD, which has no live layers: the final norm over the memory itself."""

    def __init__(self, model: GlimmerModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, memory: Tensor, memory_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(b, k, n_p, d), (b, k, n_p) -> states (b, k * n_p, d) and mask (b, k * n_p)."""
        return self.model.live_encoder.finish(memory).flatten(1, 2), memory_mask.flatten(1)
