"""The papers' loss against its parts, computed one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from glimmer_export.exporter.checkpoint import CheckpointConfig, random_weights
from glimmer_export.exporter.stages import GlimmerModel, Masked
from glimmer_export.exporter.tolerances import TOLERANCES
from glimmer_export.exporter.training.batch import IGNORED, Batch
from glimmer_export.exporter.training.loss import LossSettings, decoder_rows, divergence, training_loss

TINY = {
    "vocab_size": 61, "d_model": 24, "d_kv": 8, "d_ff": 40, "num_heads": 2, "num_memory_layers": 1,
    "num_stage_a_layers": 1, "num_stage_b_layers": 1, "num_decoder_layers": 1, "question_length": 6,
    "passage_length": 9, "num_retrieved": 4, "num_selected": 2, "max_new_tokens": 5,
}  # fmt: skip
MODELS = {
    "glimmer": {},
    "lumen": {"num_stage_a_layers": 0, "num_selected": None},
    "memory_fid": {"num_stage_a_layers": 0, "num_stage_b_layers": 0, "num_selected": None},
    "fid": {"num_memory_layers": 0, "num_stage_a_layers": 0, "num_selected": None},
}  # fmt: skip
CLOSE = TOLERANCES["fp32"]


def model_of(architecture: str, *, dropout: float = 0.0) -> GlimmerModel:
    config = CheckpointConfig(**{**TINY, **MODELS[architecture], "architecture": architecture})
    model = GlimmerModel(config)
    model.load_state_dict(random_weights(config, seed=3))
    model.set_dropout(dropout)
    return model.train()


def batch_of(size: int = 3, passages: int = 4, seed: int = 0) -> Batch:
    """Questions, passages and answers of different lengths; the last passage of the last row is absent."""
    random = torch.Generator().manual_seed(seed)

    def padded(*dims: int) -> Masked:
        lengths = torch.randint(1, dims[-1] + 1, dims[:-1], generator=random)
        mask = (torch.arange(dims[-1]) < lengths[..., None]).long()
        return Masked(torch.randint(3, 61, dims, generator=random) * mask, mask)

    question, read, (answers, kept) = padded(size, 6), padded(size, passages, 9), padded(size, 5)
    read.mask[-1, -1] = 0
    gold = torch.zeros(size, passages, dtype=torch.bool)
    gold[:, 1] = True
    return Batch(question, read, answers.masked_fill(kept == 0, IGNORED), gold)


def part(batch: Batch, rows: slice) -> Batch:
    question, passages = (Masked(values[rows], mask[rows]) for values, mask in (batch.question, batch.passages))
    return Batch(question, passages, batch.labels[rows], batch.gold[rows])


def log_likelihood(model: GlimmerModel, batch: Batch, row: int, place: int) -> float:
    """Of a row's answer from one passage, token by token, in evaluation mode."""
    one = part(batch, slice(row, row + 1))
    alone = Masked(one.passages.values[:, [place]], one.passages.mask[:, [place]])
    answer = [int(token) for token in one.labels[0] if token != IGNORED]
    with torch.no_grad():
        encoded = model.encode_texts(one.question, alone, None)
        total = 0.0
        for step, token in enumerate(answer):
            ids = torch.tensor([[model.config.decoder_start_token_id, *answer[:step]]])
            logits = model.decode(ids, encoded.states, encoded.mask)[0, -1]
            total += float(torch.log_softmax(logits, -1)[token])
    return total


def test_both_heads_of_a_cascade_learn_from_all_passages():
    """Each as the one head of a model that ranks once; and nothing is learned of what is dropped."""
    config = CheckpointConfig(**{**TINY, "architecture": "glimmer", "num_stage_a_layers": 2, "num_shortlisted": 3})
    model = GlimmerModel(config)
    model.load_state_dict(random_weights(config, seed=3))
    batch, settings = batch_of(), LossSettings()
    losses = training_loss(model.train(), batch, settings)
    encoded = model.encode_texts(batch.question, batch.passages, config.num_selected)
    alone = torch.tensor([[log_likelihood(model, batch, row, place) for place in range(4)] for row in range(3)])
    wanted = sum(divergence(level, alone, settings).sum() for level in encoded.levels)
    assert losses.ranking.item() == pytest.approx(wanted.item(), rel=1e-4)
    losses.ranking.backward()
    assert all(head.weight.grad.abs().sum() > 0 for head in (model.score, model.shortlist_score))
    assert torch.isfinite(model.live_encoder.block[0].layer[0].SelfAttention.q.weight.grad).all()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("likelihood", ["sum", "mean"])
@pytest.mark.parametrize("direction", ["rank_to_lm", "lm_to_rank"])
def test_scores_are_drawn_to_each_answers_likelihood_from_each_passage_alone(dropout, likelihood, direction):
    model, batch = model_of("glimmer", dropout=dropout), batch_of()
    settings = LossSettings(temperature=0.7, divergence=direction, likelihood=likelihood, likelihood_rows=5)
    torch.manual_seed(1)
    found = float(training_loss(model, batch, settings).ranking.detach())
    torch.manual_seed(1)
    scores = model.encode_texts(batch.question, batch.passages, 2).scores.detach()
    model.eval()
    total = 0.0
    for row in range(3):
        present = [place for place in range(4) if batch.passages.mask[row, place].any()]
        tokens = int((batch.labels[row] != IGNORED).sum()) if likelihood == "mean" else 1
        alone = torch.tensor([log_likelihood(model, batch, row, place) / tokens for place in present])
        rank, lm = (torch.log_softmax(values / 0.7, 0) for values in (scores[row, present], alone))
        first, second = (rank, lm) if direction == "rank_to_lm" else (lm, rank)
        total += float(torch.distributions.kl_divergence(*(
            torch.distributions.Categorical(logits=logits) for logits in (first, second)
        )))  # fmt: skip
    assert found == pytest.approx(total, rel=CLOSE.rtol, abs=CLOSE.atol)


@pytest.mark.parametrize("architecture", MODELS)
def test_parts_of_a_batch_add_up_to_the_whole(architecture):
    model, batch = model_of(architecture), batch_of()
    whole = training_loss(model, batch, settings := LossSettings())
    parts = [training_loss(model, part(batch, rows), settings) for rows in (slice(0, 2), slice(2, 3))]
    assert sum(each.tokens for each in parts) == whole.tokens
    totals = [each.total(settings, whole.tokens, whole.questions) for each in parts]
    torch.testing.assert_close(sum(totals), whole.total(settings), atol=CLOSE.atol, rtol=CLOSE.rtol)
    assert len({round(whole.tokens / each.tokens, 6) for each in parts}) == 2  # or a mean of means would be the same


def test_the_score_head_learns_from_the_ranking_loss_alone():
    def gradients(weight: float) -> tuple[Tensor, Tensor]:
        model = model_of("glimmer")
        training_loss(model, batch_of(), settings := LossSettings(ranking_weight=weight)).total(settings).backward()
        return model.score.weight.grad, model.decoder.final_layer_norm.weight.grad

    (score, decoder), (none, same) = gradients(1.0), gradients(0.0)
    assert score.abs().sum() > 0
    assert none.abs().sum() == 0
    assert torch.equal(decoder, same)


def test_one_passage_is_not_ranked():
    losses = training_loss(model_of("glimmer"), batch_of(passages=2), LossSettings(), 1)
    assert losses.ranking > 0
    one = batch_of(size=2, passages=2)
    one = Batch(one.question, Masked(*(values[:, :1] for values in one.passages)), one.labels, one.gold[:, :1])
    assert training_loss(model_of("glimmer"), one, LossSettings()).ranking == 0


def test_absent_passages_have_no_part_in_the_divergence():
    settings = LossSettings()
    scores, likelihoods = torch.randn(2, 3), torch.randn(2, 3)
    absent = torch.cat([scores, torch.full((2, 2), -torch.inf)], 1).requires_grad_()
    found = divergence(absent, torch.cat([likelihoods, torch.randn(2, 2)], 1), settings)
    torch.testing.assert_close(found, divergence(scores, likelihoods, settings))
    found.sum().backward()
    assert torch.isfinite(absent.grad).all()


def test_memory_that_is_at_hand_is_not_encoded_again():
    model, batch = model_of("glimmer"), batch_of()
    with torch.no_grad():
        memory = model.encode_memory(*(values.flatten(0, 1) for values in batch.passages)).unflatten(0, (3, 4))
    stored = Batch(batch.question, Masked(memory, batch.passages.mask), batch.labels, batch.gold)
    whole, frozen = (training_loss(model, each, LossSettings()) for each in (batch, stored))
    torch.testing.assert_close(frozen.language_model, whole.language_model)
    torch.testing.assert_close(frozen.ranking, whole.ranking)


def test_a_question_before_the_answer_is_not_learned():
    model, batch = model_of("memory_fid"), batch_of()
    ids, labels = decoder_rows(model, batch.question, batch.labels)
    for row in range(3):
        asked = batch.question.values[row][batch.question.mask[row] > 0].tolist()
        said = [token for token in batch.labels[row].tolist() if token != IGNORED]
        assert ids[row, : len(asked) + len(said)].tolist() == [0, *asked, *said[:-1]]
        assert [token for token in labels[row].tolist() if token != IGNORED] == said
        assert labels[row, len(asked) : len(asked) + len(said)].tolist() == said
    whole = training_loss(model, batch, LossSettings()).language_model
    rows = [training_loss(model, part(batch, slice(row, row + 1)), LossSettings()).language_model for row in range(3)]
    torch.testing.assert_close(sum(rows), whole, atol=CLOSE.atol, rtol=CLOSE.rtol)


def test_the_model_keeps_its_mode():
    model = model_of("glimmer", dropout=0.1)
    model.memory_encoder.eval()
    training_loss(model, batch_of(), LossSettings())
    assert model.training
    assert model.live_encoder.training
    assert not model.memory_encoder.training
