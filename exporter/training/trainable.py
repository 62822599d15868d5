"""A checkpoint as the model that is trained, and the trained model as a checkpoint's tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from glimmer_export.exporter.checkpoint import CheckpointConfig
from glimmer_export.exporter.checkpoint.config import parse_config
from glimmer_export.exporter.checkpoint.initialise import score_weights, shortlist_weights
from glimmer_export.exporter.checkpoint.weights import MEMORY_PREFIXES, weight_shapes
from glimmer_export.exporter.stages import GlimmerModel
from glimmer_export.exporter.training.ranking_fid import RankingFid
from glimmer_export.exporter.training.recipe import Recipe
from glimmer_export.runtime.contract import OptionError

__all__ = ["model_to_train", "tensors_from_model", "train_mode", "trained_model"]

NOT_ITSELF = -6.0
ONE_BEFORE = 1
"""The bucket of the word before."""
SHARPNESS, LOUDNESS = 0.7, 2.0
"""Of the decoder's head: so much that the word found stands out among some fifty, and in what the others write."""
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def trained_model(config: CheckpointConfig, recipe: Recipe) -> GlimmerModel:
    """The model that is trained, without weights: the checkpoint's, or one that ranks if the recipe adds a score head.

    Raises OptionError for a head on a model that has no layers to rank with, and a frozen memory where there is none.
    """
    traits = config.shape.traits
    if recipe.memory == "frozen" and not traits.has_memory:
        raise OptionError(
            "recipe, memory", expected=f"trained, as {config.architecture} has no memory", found="frozen",
            fix="pass --set memory=trained",
        )
    if recipe.score_head is None or traits.selects:
        return GlimmerModel(config)
    if not recipe.score_head < config.num_live_layers:
        raise OptionError(
            "recipe, score_head", found=str(recipe.score_head),
            expected=f"fewer than the {config.num_live_layers} live layers of a {config.architecture}, or null",
            fix="pass --set score_head=null",
        )
    if not traits.has_memory:
        return RankingFid(config, recipe.score_head)
    ranking = {
        "architecture": "glimmer", "num_stage_a_layers": recipe.score_head,
        "num_stage_b_layers": config.num_live_layers - recipe.score_head, "num_selected": config.num_retrieved,
    }
    return GlimmerModel(parse_config(config.model_dump() | ranking, subject="the model that is trained"))


def model_to_train(
    config: CheckpointConfig, tensors: Mapping[str, Tensor], recipe: Recipe, *, seed: int, device: torch.device
) -> GlimmerModel:
    """`trained_model` in FP32 with the checkpoint's weights; if it lacks a score head, `seed` draws one.

    A shortlist's head begins as that of stage A. Parameters that the recipe freezes take no gradient. Raises as
    `trained_model`.
    """
    model = trained_model(config, recipe)
    weights = {name: tensor.float().clone() for name, tensor in tensors.items()}
    if hasattr(model, "score") and "score.weight" not in weights:
        weights |= score_weights(config, seed=seed)
    if hasattr(model, "shortlist_score") and "shortlist_score.weight" not in weights:
        weights |= shortlist_weights(weights)
    if recipe.start != "checkpoint":
        _start_copying(config, weights)
    if recipe.start == "copying_spans":
        _start_continuing(config, weights, seed=seed)
    model.load_state_dict(weights)
    model.set_dropout(recipe.dropout)
    model.set_gradient_checkpointing(recipe.gradient_checkpointing)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not (recipe.memory == "frozen" and name.startswith(MEMORY_PREFIXES)))
    return train_mode(model.to(device), recipe)


def train_mode(model: GlimmerModel, recipe: Recipe) -> GlimmerModel:
    """Training mode, but for a frozen memory encoder: it gives the memory that a store has."""
    model.train()
    if recipe.memory == "frozen":
        model.memory_encoder.eval()
    return model


def tensors_from_model(model: GlimmerModel, config: CheckpointConfig, recipe: Recipe) -> dict[str, Tensor]:
    """The checkpoint's tensors, on the CPU in the recipe's dtype; what was added for the training is left out."""
    trained = model.state_dict()
    return {name: trained[name].to("cpu", DTYPES[recipe.weights], copy=True) for name in weight_shapes(config)}


def _start_copying(config: CheckpointConfig, weights: dict[str, Tensor]) -> None:
    """Bring random weights nearer to what has to be learned, in two places.

    Answers are copied out of passages: the output projection starts as the (scaled) embedding. Passages are found by
    the words they share with the question: in half of the encoders' heads, keys start as (scaled) queries and distance
    zero is discouraged, so that a word attends to its like elsewhere.
    """
    if not config.tie_word_embeddings:
        weights["lm_head.weight"] = weights["shared.weight"] * config.d_model**-0.5
    like = config.inner_dim // 2
    for name, values in weights.items():
        if "encoder" not in name:
            continue
        if name.endswith("SelfAttention.q.weight"):
            weights[name.replace(".q.", ".k.")][:like] = values[:like] * config.d_kv**0.5
        if name.endswith("relative_attention_bias.weight"):
            values[0, : config.num_heads // 2] = NOT_ITSELF


def _start_continuing(config: CheckpointConfig, weights: dict[str, Tensor], *, seed: int) -> None:
    """An answer of several words goes on with the word that stands behind its last one in a passage.

    One head of each stack, its last, starts as half of an induction head (Olsson et al. 2022): the encoders' attends to
    the word before, and their first layer writes a sketch of it, a random projection; the decoder's finds the sketch of
    the word it said last, and writes a sketch of the word that is there.
    """
    generator = torch.Generator().manual_seed(seed)
    last_said, word_before, word_found = (
        torch.randn(config.d_model, config.d_kv, generator=generator) * config.d_model**-0.5 for _ in range(3)
    )
    head = slice(config.inner_dim - config.d_kv, config.inner_dim)
    for name, values in weights.items():
        if name.endswith("encoder.block.0.layer.0.SelfAttention.v.weight"):
            values[head] = last_said.T
            weights[name.replace(".v.", ".o.")][:, head] = word_before
        if "encoder" in name and name.endswith("relative_attention_bias.weight"):
            values[ONE_BEFORE, -1] = -NOT_ITSELF
        if name.endswith("EncDecAttention.q.weight"):
            values[head] = last_said.T * SHARPNESS
            weights[name.replace(".q.", ".k.")][head] = word_before.T * SHARPNESS
            weights[name.replace(".q.", ".v.")][head] = word_found.T
            weights[name.replace(".q.", ".o.")][:, head] = word_found * LOUDNESS
