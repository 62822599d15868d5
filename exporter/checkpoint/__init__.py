"""Checkpoints: read, write, initialise, and convert from Hugging Face T5."""

from glimmer_export.exporter.checkpoint.config import CheckpointConfig, read_config
from glimmer_export.exporter.checkpoint.from_t5 import convert_t5
from glimmer_export.exporter.checkpoint.initialise import random_weights, score_weights
from glimmer_export.exporter.checkpoint.options import ModelOptions, parse_proportion
from glimmer_export.exporter.checkpoint.read import (
    Checkpoint,
    open_tensors,
    read_checkpoint,
)
from glimmer_export.exporter.checkpoint.weights import weight_shapes
from glimmer_export.exporter.checkpoint.write import write_checkpoint

__all__ = [
    "Checkpoint",
    "CheckpointConfig",
    "ModelOptions",
    "convert_t5",
    "open_tensors",
    "parse_proportion",
    "random_weights",
    "read_checkpoint",
    "read_config",
    "score_weights",
    "weight_shapes",
    "write_checkpoint",
]
