"""Random weights, seeded, at the scales T5 starts its training from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from exporter.checkpoint.config import CheckpointConfig
from exporter.checkpoint.weights import weight_shapes

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["random_weights", "score_weights"]


def random_weights(config: CheckpointConfig, *, seed: int) -> dict[str, Tensor]:
    """Every tensor of the config, float32, drawn at Mesh TensorFlow's scales; the same for the same seed."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in weight_shapes(config).items():
        deviation = _deviation(name, config)
        if deviation is None:
            constant = 0.0 if name.endswith(".bias") else 1.0
            tensors[name] = torch.full(shape, constant)
        else:
            tensors[name] = torch.randn(shape, generator=generator) * deviation
    return tensors


def score_weights(config: CheckpointConfig, *, seed: int) -> dict[str, Tensor]:
    """A new score head: normal, since a zero one would tie every passage."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((1, config.d_model), generator=generator) * config.d_model**-0.5
    return {"score.weight": weight, "score.bias": torch.zeros(1)}


def _deviation(name: str, config: CheckpointConfig) -> float | None:
    """Standard deviation of a tensor's normal draw; None for constants (norm weights 1, biases 0)."""
    if "layer_norm" in name or name == "score.bias":
        return None
    if name in ("shared.weight", "lm_head.weight"):
        return 1.0
    fan_in: dict[str, int] = {"q": config.d_model * config.d_kv, "o": config.inner_dim, "wo": config.d_ff}
    return 1 / math.sqrt(fan_in.get(name.split(".")[-2], config.d_model))
