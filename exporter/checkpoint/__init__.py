"""Checkpoints: read, write, initialise, and convert from Hugging Face T5."""

from exporter.checkpoint.config import CheckpointConfig, read_config
from exporter.checkpoint.initialise import random_weights, score_weights
from exporter.checkpoint.read import Checkpoint, model_from_checkpoint, read_checkpoint
from exporter.checkpoint.weights import weight_shapes
from exporter.checkpoint.write import write_checkpoint

__all__ = [
    "Checkpoint",
    "CheckpointConfig",
    "model_from_checkpoint",
    "random_weights",
    "read_checkpoint",
    "read_config",
    "score_weights",
    "weight_shapes",
    "write_checkpoint",
]
