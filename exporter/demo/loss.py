"""The papers' training loss: language modelling, and perplexity distillation for the reranker (GLIMMER paper)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from glimmer_export.exporter.demo.batches import Batch
from glimmer_export.exporter.demo.tokenizer import PAD_ID
from glimmer_export.exporter.stages import GlimmerModel

__all__ = ["Losses", "training_loss"]


@dataclass(frozen=True)
class Losses:
    """Losses of one batch (scalars), and how often the whole answer and the gold passage were right (b,)."""

    language_model: Tensor
    distillation: Tensor
    exact: Tensor
    selected: Tensor

    @property
    def total(self) -> Tensor:
        """Their sum: the papers' lambda is 1."""
        return self.language_model + self.distillation


def training_loss(model: GlimmerModel, batch: Batch, num_selected: int, temperature: float = 1.0) -> Losses:
    """LM loss over the `num_selected` best passages, plus KL of the scores from the perplexity of each passage alone.

    `exact` is teacher-forced, which for one answer is the same as greedy decoding's exact match.
    """
    # The decoder reads the passages as they were retrieved, not as they were ranked.
    read, mask, scores, kept, reranked = model.encode_texts(*batch.texts, num_selected)
    assert scores is not None
    assert kept is not None
    assert reranked is not None
    distillation = read.new_zeros(())
    if scores.shape[1] > 1:
        target = _log_likelihood_alone(model, batch, reranked.detach())
        distillation = nn.functional.kl_div(
            torch.log_softmax(scores / temperature, dim=-1),
            torch.log_softmax(target / temperature, dim=-1),
            log_target=True,
            reduction="batchmean",
        )
    logits = model.decode(_shifted(model, batch.labels), read, mask)
    language_model = nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=PAD_ID)
    right = (logits.argmax(-1) == batch.labels) | (batch.labels == PAD_ID)
    return Losses(language_model, distillation, right.all(1), (kept == batch.gold[:, None]).any(1))


@torch.no_grad()
def _log_likelihood_alone(model: GlimmerModel, batch: Batch, states: Tensor) -> Tensor:
    """Log-likelihood of the answer given each passage alone: (b, k, n, d_model) -> (b, k)."""
    num_passages = states.shape[1]
    read = model.stage_b(states, batch.question_mask, batch.passage_mask).flatten(0, 1)
    mask = model.joint_mask(batch.question_mask, batch.passage_mask).flatten(0, 1)
    labels = batch.labels.repeat_interleave(num_passages, dim=0)
    logits = model.decode(_shifted(model, labels), read, mask)
    loss = nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=PAD_ID, reduction="none")
    likelihood: Tensor = -loss.sum(1)
    return likelihood.view(-1, num_passages)


def _shifted(model: GlimmerModel, labels: Tensor) -> Tensor:
    start = labels.new_full((labels.shape[0], 1), model.config.decoder_start_token_id)
    return torch.cat([start, labels[:, :-1]], dim=1)
