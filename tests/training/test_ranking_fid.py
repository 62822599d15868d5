"""A FiD with a score head is the FiD itself where all passages are read, and learns to rank."""

from __future__ import annotations

import pytest
import torch

from glimmer_export.exporter.checkpoint import random_weights
from glimmer_export.exporter.stages import GlimmerModel, Masked
from glimmer_export.exporter.training.loss import LossSettings, training_loss
from glimmer_export.exporter.training.trainable import model_to_train, tensors_from_model
from glimmer_export.runtime.contract import OptionError
from tests.training.short import short_recipe
from tests.training.test_loss import batch_of, model_of


def ranking(plain: GlimmerModel) -> GlimmerModel:
    weights = random_weights(plain.config, seed=3)
    recipe = short_recipe(score_head=1, start="checkpoint")
    return model_to_train(plain.config, weights, recipe, seed=0, device=torch.device("cpu"))


@pytest.fixture
def plain() -> GlimmerModel:
    model = model_of("fid")
    model.config = model.config.model_copy(update={"num_stage_b_layers": 2})
    fid = GlimmerModel(model.config)
    fid.load_state_dict(random_weights(model.config, seed=3))
    return fid


def test_reading_all_passages_is_the_fid_itself(plain):
    batch, model = batch_of(), ranking(plain)
    whole, scored = (each.encode_texts(batch.question, batch.passages, None) for each in (plain, model))
    assert torch.equal(scored.states, whole.states)
    assert torch.equal(scored.mask, whole.mask)
    assert scored.selected.tolist() == [[0, 1, 2, 3]] * 3
    assert torch.isinf(scored.scores[-1, -1])


def test_the_best_by_score_are_read_as_if_they_were_all(plain):
    batch, model = batch_of(), ranking(plain)
    found = model.encode_texts(batch.question, batch.passages, 2)
    rows = torch.arange(3)[:, None]
    assert torch.equal(found.selected, found.scores.topk(2).indices.sort().values)
    alone = Masked(*(values[rows, found.selected] for values in batch.passages))
    torch.testing.assert_close(found.states, plain.encode_texts(batch.question, alone, None).states)


def test_the_head_learns_and_is_dropped(plain):
    model = ranking(plain)
    losses = training_loss(model, batch_of(), settings := LossSettings(), 2)
    assert losses.ranking > 0
    losses.total(settings).backward()
    assert model.score.weight.grad.abs().sum() > 0
    recipe = short_recipe(weights="float32")
    assert set(tensors_from_model(model, plain.config, recipe)) == set(plain.state_dict())


def test_a_head_needs_layers_to_rank_with_and_some_behind(plain):
    recipe = short_recipe(score_head=2)
    with pytest.raises(OptionError, match="fewer than the 2 live layers of a fid"):
        model_to_train(plain.config, plain.state_dict(), recipe, seed=0, device=torch.device("cpu"))
