"""T5's relative-position bias, looked up by distance so that no logarithm is left in a graph."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from glimmer_export.exporter.checkpoint.config import CheckpointConfig

__all__ = ["RelativeBias", "distance_buckets"]


def distance_buckets(*, num_buckets: int, max_distance: int, bidirectional: bool) -> Tensor:
    """Bucket of each distance `key - query` from -max_distance to max_distance: (2 * max_distance + 1,) int32.

    T5 (Raffel et al. 2020, section 2.1): half of a side's buckets are exact distances, the rest grow
    logarithmically; beyond max_distance all share the last. Computed in float32 as Hugging Face does, since its
    rounding at a boundary is what checkpoints were trained with.
    """
    distance = torch.arange(-max_distance, max_distance + 1)
    if bidirectional:
        num_buckets //= 2
        first = (distance > 0).long() * num_buckets
        distance = distance.abs()
    else:
        first = torch.zeros_like(distance)
        distance = (-distance).clamp(min=0)
    num_exact = num_buckets // 2
    logarithmic = torch.log(distance.clamp(min=1).float() / num_exact) / math.log(max_distance / num_exact)
    large = num_exact + (logarithmic * (num_buckets - num_exact)).long()
    bucket = torch.where(distance < num_exact, distance, large.clamp(max=num_buckets - 1))
    return (first + bucket).int()


class RelativeBias(nn.Module):
    """The bias table of one stack; its first block owns the weights, every layer uses them."""

    def __init__(self, config: CheckpointConfig, *, bidirectional: bool) -> None:
        super().__init__()
        self.max_distance = config.relative_attention_max_distance
        self.weight = nn.Parameter(torch.empty(config.relative_attention_num_buckets, config.num_heads))
        self.bidirectional = bidirectional
        self.buckets: Tensor
        self.register_buffer("buckets", None, persistent=False)
        self.compute_buckets(torch.device("cpu"))

    def compute_buckets(self, device: torch.device) -> None:
        """Compute the buffer that no checkpoint holds, on this device whatever device the weights are made on."""
        with torch.device("cpu"):
            buckets = distance_buckets(
                num_buckets=self.weight.shape[0], max_distance=self.max_distance, bidirectional=self.bidirectional
            )
        self.buckets = buckets.to(device)

    def forward(self, query_positions: Tensor, key_positions: Tensor) -> Tensor:
        """Bias of every pair of positions: (..., q) and (..., n) int32 -> (..., heads, q, n)."""
        by_distance = self.weight.index_select(0, self.buckets)
        distance = key_positions.unsqueeze(-2) - query_positions.unsqueeze(-1)
        index = distance.clamp(-self.max_distance, self.max_distance) + self.max_distance
        return nn.functional.embedding(index, by_distance).movedim(-1, -3)
