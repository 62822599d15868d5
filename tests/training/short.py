"""Trainings of a few steps on the demo's world."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from glimmer_export.exporter.checkpoint import Checkpoint, random_weights
from glimmer_export.exporter.demo import demo_start
from glimmer_export.exporter.training.processes import Processes
from glimmer_export.exporter.training.recipe import Recipe
from glimmer_export.exporter.training.sources import sources_from_recipe
from glimmer_export.exporter.training.texts import RowText
from glimmer_export.exporter.training.train import TrainingData, train_checkpoint
from glimmer_export.exporter.training.trainable import model_to_train
from glimmer_export.exporter.training.trainer import Trainer
from glimmer_export.runtime.text import read_tokenizer

__all__ = ["PHASE", "demo_text", "short_recipe", "short_trainer", "train_tiny"]

PHASE = {
    "steps": 2, "batch_size": 2, "num_retrieved": 1, "num_selected": 1, "learning_rate": 1e-3, "ramp": "linear",
    "world": {"generator": "demo", "options": {"facts_per_passage": 1}},
}
SHORT = {
    "start": "copying", "optimizer": {"name": "adamw", "weight_decay": 0.01}, "dropout": 0.0, "gold": "among",
    "distractors": "random", "divergence": "lm_to_rank", "weights": "float16", "keep": "last", "score_head": 2,
    "dev_questions": 5, "save_every": 2, "world": {"generator": "demo"}, "precision": "float32",
    "phases": (PHASE, PHASE),
}


def short_recipe(**changes: object) -> Recipe:
    """Two phases of two steps, with fields changed."""
    return Recipe.model_validate({**SHORT, **changes})


@cache
def demo_text() -> RowText:
    """How the demo's model reads."""
    config, tokenizer = demo_start("glimmer")
    return RowText(read_tokenizer(tokenizer, config.vocab_size, subject="demo", fix=""), config.shape)


def short_trainer(recipe: Recipe, *, seed: int = 0, processes: Processes | None = None) -> Trainer:
    """A training of the demo's glimmer from random weights."""
    config, _ = demo_start("glimmer")
    device = torch.device("cpu")
    model = model_to_train(config, random_weights(config, seed=seed), recipe, seed=seed, device=device)
    source = sources_from_recipe(recipe, demo_text(), None, seed=seed)
    return Trainer(model, recipe, source, processes or Processes(device), seed=seed)


def train_tiny(checkpoint: Checkpoint, rows: Path, output: Path, *, seed: int = 0, **changes: object) -> dict[str, Any]:
    """Two steps of a tiny checkpoint on a file whose rows give their passages, fields of the recipe changed."""
    fields: dict[str, Any] = {
        "steps": 2, "batch_size": 2, "num_retrieved": 2, "num_selected": 1, "learning_rate": 1e-3, "keep": "last",
        "precision": "float32", "optimizer": {"name": "sgd"},
    }  # fmt: skip
    recipe = Recipe.model_validate(fields | changes)
    data = TrainingData(train=[str(rows)], dev=[str(rows)] if recipe.keep == "best" else [], given=True)
    console = Console(file=io.StringIO())
    return train_checkpoint(checkpoint.directory, data, recipe, output, seed=seed, device="cpu", console=console)
