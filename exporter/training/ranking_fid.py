"""A FiD that ranks while it is trained: a score head behind its first layers, which is dropped at the end."""

from __future__ import annotations

import torch
from torch import nn

from glimmer_export.exporter.checkpoint import CheckpointConfig
from glimmer_export.exporter.stages.model import Encoded, GlimmerModel, Masked

__all__ = ["RankingFid"]


class RankingFid(GlimmerModel):
    """FiD whose first `num_ranking_layers` rank question and passage texts as GLIMMER's stage A ranks memory.

    The score reads the un-normalised first token behind those layers (GLIMMER paper, section 3.2); all the other
    layers, and the decoder, run for the best m. The weights are FiD's and `score`.
    """

    def __init__(self, config: CheckpointConfig, num_ranking_layers: int) -> None:
        super().__init__(config)
        self.score = nn.Linear(config.d_model, 1)
        self._num_ranking_layers = num_ranking_layers

    def encode_texts(self, question: Masked, passages: Masked, num_selected: int | None) -> Encoded:
        """As the model's own, with scores; None reads all k."""
        joined = self._joined(question, passages)
        size, places, length = joined.mask.shape
        stack, depth = self.live_encoder, self._num_ranking_layers
        positions = torch.arange(length, dtype=torch.int32, device=joined.mask.device)
        embedded = stack.dropout(self.shared(joined.values.flatten(0, 1)))
        ranked = stack(embedded, stack.bias(positions, joined.mask.flatten(0, 1)), slice(0, depth))
        ranked = ranked.unflatten(0, (size, places))
        scores = self.scores(ranked[:, :, 0], joined.mask)
        best = torch.sort(-scores.detach(), dim=1, stable=True).indices[:, :num_selected]
        selected = torch.sort(best, dim=1).values
        rows = torch.arange(size, device=selected.device)[:, None]
        states, mask = ranked[rows, selected], joined.mask[rows, selected]
        states = stack(states.flatten(0, 1), stack.bias(positions, mask.flatten(0, 1)), slice(depth, None))
        read = stack.finish(states).unflatten(0, selected.shape)
        return Encoded(read.flatten(1, 2), mask.flatten(1), scores, selected)
