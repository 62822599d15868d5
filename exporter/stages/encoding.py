"""Stages that turn token ids into states: the memory encoder, the question encoder, and FiD's joined encoder."""

from __future__ import annotations

from torch import Tensor, nn

from glimmer_export.exporter.stages.model import GlimmerModel

__all__ = ["JoinedEncoder", "MemoryEncoder", "QuestionEncoder"]


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
