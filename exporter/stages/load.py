"""A checkpoint's tensors -> the torch model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from glimmer_export.exporter.stages.model import GlimmerModel

if TYPE_CHECKING:
    from torch import Tensor

    from glimmer_export.exporter.checkpoint import Checkpoint, CheckpointConfig

__all__ = ["model_from_checkpoint", "model_from_weights"]


def model_from_checkpoint(checkpoint: Checkpoint) -> GlimmerModel:
    """The torch model in FP32, in evaluation mode."""
    return model_from_weights(checkpoint.config, {name: tensor.float() for name, tensor in checkpoint.tensors.items()})


def model_from_weights(config: CheckpointConfig, weights: Mapping[str, Tensor]) -> GlimmerModel:
    """The torch model that holds these tensors themselves, in evaluation mode."""
    import torch

    with torch.device("meta"):
        model = GlimmerModel(config)
    model.load_state_dict(weights, strict=True, assign=True)
    return model.requires_grad_(False).eval()
