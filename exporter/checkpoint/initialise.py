"""Random weights, seeded, at the scales T5 starts its training from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from glimmer_export.exporter.checkpoint.config import CheckpointConfig
from glimmer_export.exporter.checkpoint.lazy_tensors import LazyTensors, TensorSpec
from glimmer_export.exporter.checkpoint.weights import weight_shapes

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["RandomWeights", "random_weights", "reranker_weights", "score_weights", "shortlist_weights"]


class RandomWeights(LazyTensors):
    """Every tensor of a config, float32, drawn at Mesh TensorFlow's scales; the same for the same seed.

    Each is drawn after the one before it: a stream draws all once, a look-up all that come before.
    """

    def __init__(self, config: CheckpointConfig, *, seed: int) -> None:
        import torch

        self._config, self._seed = config, seed
        shapes = weight_shapes(config)
        super().__init__({name: TensorSpec(shape, torch.float32) for name, shape in shapes.items()}, self._drawn)

    def stream(self) -> Iterator[tuple[str, Tensor]]:
        """All, one after the other."""
        import torch

        generator = torch.Generator().manual_seed(self._seed)
        for name, spec in self.specs.items():
            yield name, _draw(name, spec.shape, self._config, generator)

    def _drawn(self, name: str) -> Tensor:
        return next(tensor for drawn, tensor in self.stream() if drawn == name)


def random_weights(config: CheckpointConfig, *, seed: int) -> dict[str, Tensor]:
    """All of `RandomWeights`, to be changed at will."""
    return dict(RandomWeights(config, seed=seed).stream())


def score_weights(config: CheckpointConfig, *, seed: int) -> dict[str, Tensor]:
    """A new score head: normal, since a zero one would tie every passage."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn((1, config.d_model), generator=generator) * config.d_model**-0.5
    made = {"score.weight": weight, "score.bias": torch.zeros(1)}
    return made | shortlist_weights(made) if config.num_shortlisted is not None else made


def shortlist_weights(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The head of a shortlist that is still to be trained: a copy of stage A's, which reads the same stream."""
    return {f"shortlist_score.{part}": weights[f"score.{part}"].clone() for part in ("weight", "bias")}


def reranker_weights(config: CheckpointConfig, *, seed: int) -> LazyTensors:
    """A separate reranker from scratch, float32; each tensor is drawn apart, so that none waits for another."""
    import torch

    shapes = {name: shape for name, shape in weight_shapes(config).items() if name.startswith("reranker.")}
    places = {name: place for place, name in enumerate(shapes, start=1)}

    def draw(name: str) -> Tensor:
        state = np.random.SeedSequence([seed, places[name]]).generate_state(1, np.uint64)
        return _draw(name, shapes[name], config, torch.Generator().manual_seed(int(state[0])))

    return LazyTensors({name: TensorSpec(shape, torch.float32) for name, shape in shapes.items()}, draw)


def _draw(name: str, shape: tuple[int, ...], config: CheckpointConfig, generator: torch.Generator) -> Tensor:
    import torch

    deviation = _deviation(name, config)
    if deviation is None:
        return torch.full(shape, 0.0 if name.endswith(".bias") else 1.0)
    return torch.randn(shape, generator=generator).mul_(deviation)


def _deviation(name: str, config: CheckpointConfig) -> float | None:
    """Standard deviation of a tensor's normal draw; None for constants (norm weights 1, biases 0)."""
    if "layer_norm" in name or name in ("score.bias", "shortlist_score.bias"):
        return None
    if name in ("shared.weight", "lm_head.weight"):
        return 1.0
    fan_in: dict[str, int] = {"q": config.d_model * config.d_kv, "o": config.inner_dim, "wo": config.d_ff}
    return 1 / math.sqrt(fan_in.get(name.split(".")[-2], config.d_model))
