"""The papers' loss: language modelling, and perplexity distillation for what ranks (GLIMMER paper, section 3.2)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from glimmer_export.exporter.stages.model import Encoded, GlimmerModel, Masked
from glimmer_export.exporter.training.batch import IGNORED, Batch

__all__ = [
    "Divergence", "Likelihood", "LossSettings", "Losses", "decoder_rows", "divergence", "evaluation_mode", "losses_of",
    "training_loss",
]  # fmt: skip

Divergence = Literal["rank_to_lm", "lm_to_rank"]
"""KL(p_rank || p_LM), as the GLIMMER paper writes it, or KL(p_LM || p_rank), as Atlas's code computes it."""
Likelihood = Literal["sum", "mean"]
"""Of the answer given one passage: summed over its tokens, as the paper has it, or divided by their number (Atlas)."""


@dataclass(frozen=True)
class LossSettings:
    """What the loss is made of; the defaults are the GLIMMER paper's.

    `ranking_weight` is lambda and `temperature` tau. `likelihood_rows`: of how many passages at once the answer's
    likelihood is computed, which changes the memory that it takes and nothing else.
    """

    ranking_weight: float = 1.0
    temperature: float = 1.0
    divergence: Divergence = "rank_to_lm"
    likelihood: Likelihood = "sum"
    likelihood_rows: int = 128


@dataclass(frozen=True)
class Losses:
    """Sums over a batch, so that whoever splits a batch can divide by what the whole has.

    `language_model`: cross-entropy over `tokens` answer tokens; `ranking`: divergence over `questions`, 0 if nothing is
    ranked, of both levels in a cascade (scalars). `exact` (b,): every token right when the answer so far is given,
    which for a single answer is the same as greedy decoding's exact match. `selected` (b,): a gold passage is among
    those read.
    """

    language_model: Tensor
    ranking: Tensor
    tokens: int
    questions: int
    exact: Tensor
    selected: Tensor

    def total(self, settings: LossSettings, tokens: int | None = None, questions: int | None = None) -> Tensor:
        """The loss: a mean over tokens, plus lambda times a mean over questions.

        `tokens` and `questions` are those of the whole batch that this one is a part of, by default its own. A mean of
        the parts' means would give an answer more weight for standing among short ones.
        """
        language_model = self.language_model / (self.tokens if tokens is None else tokens)
        ranking = self.ranking / (self.questions if questions is None else questions)
        return language_model + settings.ranking_weight * ranking


def training_loss(
    model: GlimmerModel, batch: Batch, settings: LossSettings, num_selected: int | None = None
) -> Losses:
    """The losses of a batch, the best `num_selected` passages being read (None: as many as the model's config says).

    The decoder reads the passages as they were retrieved, not as they were ranked. If the architecture ranks, the
    scores are drawn to the answer's likelihood from each passage alone; in a cascade those of either level, of all k.
    """
    encoded = _encode(model, batch.question, batch.passages, num_selected or model.config.num_selected)
    decoder_input_ids, labels = decoder_rows(model, batch.question, batch.labels)
    logits = model.decode(decoder_input_ids, encoded.states, encoded.mask)
    return losses_of(model, batch, encoded, logits, labels, settings)


def losses_of(
    model: GlimmerModel, batch: Batch, encoded: Encoded, logits: Tensor, labels: Tensor, settings: LossSettings
) -> Losses:
    """`training_loss` of a batch that has been read: logits (b, n, vocab) that should say labels (b, n)."""
    logits, answers = logits.float(), labels != IGNORED
    ranking, selected = logits.new_zeros(()), batch.gold.any(1)
    if encoded.scores is not None and encoded.selected is not None:
        scores = encoded.scores.float()
        ranks = scores.shape[1] > 1 and settings.ranking_weight > 0
        levels = encoded.levels or (scores,)
        # Otherwise they diverge from themselves by nothing, and the score heads have a gradient of 0.
        alone = _likelihoods(model, batch, encoded, settings) if ranks else None
        ranking = torch.stack([
            divergence(level.float(), level.detach().float() if alone is None else alone, settings).sum()
            for level in levels
        ]).sum()
        selected = batch.gold.gather(1, encoded.selected).any(1)
    return Losses(
        language_model=nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum"),
        ranking=ranking,
        tokens=int(answers.sum()),
        questions=len(labels),
        exact=((logits.argmax(-1) == labels) | ~answers).all(1),
        selected=selected,
    )


def divergence(scores: Tensor, likelihoods: Tensor, settings: LossSettings) -> Tensor:
    """Divergence of the distributions that scores and log-likelihoods (b, k) stand for, summed over passages: (b,).

    Scores of absent passages are -inf and have no part in either.
    """
    absent = torch.isinf(scores)

    def log_probabilities(values: Tensor) -> Tensor:
        logs = torch.log_softmax(values.masked_fill(absent, -torch.inf) / settings.temperature, dim=-1)
        return logs.masked_fill(absent, 0.0)  # infinity times nothing would be NaN

    rank, lm = log_probabilities(scores), log_probabilities(likelihoods)
    first, second = (rank, lm) if settings.divergence == "rank_to_lm" else (lm, rank)
    return (first.exp() * (first - second)).masked_fill(absent, 0.0).sum(-1)


def decoder_rows(model: GlimmerModel, question: Masked, labels: Tensor) -> tuple[Tensor, Tensor]:
    """What the decoder reads for answers (b, t), and what it is to say, IGNORED where anything will do: both (b, n).

    The answer shifted right, behind the start token. In MemoryFiD the question stands between the two, and its tokens
    are not learned.
    """
    config = model.config
    start = labels.new_full((len(labels), 1), config.decoder_start_token_id)
    if not config.shape.traits.prefixes_decoder:
        return torch.cat([start, labels[:, :-1].masked_fill(labels[:, :-1] == IGNORED, config.pad_token_id)], 1), labels
    inputs, wanted = [], []
    for first, ids, mask, answer in zip(start, *question, labels, strict=True):
        asked, said = ids[mask > 0], answer[answer != IGNORED]
        inputs.append(torch.cat([first, asked, said[:-1]]))
        wanted.append(torch.cat([asked.new_full(asked.shape, IGNORED), said]))
    pad = nn.utils.rnn.pad_sequence
    return (
        pad(inputs, batch_first=True, padding_value=config.pad_token_id),
        pad(wanted, batch_first=True, padding_value=IGNORED),
    )


def _encode(model: GlimmerModel, question: Masked, passages: Masked, num_selected: int | None) -> Encoded:
    """Passages are ids, or memory that is at hand."""
    encode = model.encode if passages.values.is_floating_point() else model.encode_texts
    return encode(question, passages, num_selected)


@torch.no_grad()
def _likelihoods(model: GlimmerModel, batch: Batch, encoded: Encoded, settings: LossSettings) -> Tensor:
    """Log-likelihood of each answer given each passage alone, as it would be answered: (b, k), in evaluation mode."""
    size, passages = batch.passages.mask.shape[:2]
    at_once = max(1, settings.likelihood_rows // size)
    decoder_input_ids, labels = decoder_rows(model, batch.question, batch.labels)
    found = []
    with evaluation_mode(model) as dropping:
        for part in (slice(start, start + at_once) for start in range(0, passages, at_once)):
            masks = batch.passages.mask[:, part]
            if encoded.reranked is None or dropping:
                alone = _encode(model, batch.question, Masked(batch.passages.values[:, part], masks), None)
                states, mask = alone.states, alone.mask
            else:  # nothing was dropped from them, so they are what evaluation mode would give
                states, mask = model.read(encoded.reranked[:, part], batch.question.mask, masks)
            count = masks.shape[1]
            rows = states.unflatten(1, (count, -1)).flatten(0, 1), mask.unflatten(1, (count, -1)).flatten(0, 1)
            ids, wanted = (values.repeat_interleave(count, dim=0) for values in (decoder_input_ids, labels))
            logits = model.decode(ids, *rows).float()
            loss = nn.functional.cross_entropy(logits.transpose(1, 2), wanted, reduction="none")
            found.append(-loss.sum(1).view(size, count))
    likelihoods = torch.cat(found, dim=1)
    if settings.likelihood == "mean":
        likelihoods = likelihoods / (labels != IGNORED).sum(1, keepdim=True)
    return likelihoods


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[bool]:
    """Evaluation mode for a while, then each module's own again; says whether anything was dropped before."""
    modes = {module: module.training for module in model.modules()}
    drops = any(module.p > 0 and module.training for module in modes if isinstance(module, nn.Dropout))
    model.eval()
    try:
        yield drops
    finally:
        for module, training in modes.items():
            module.training = training
