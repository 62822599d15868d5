"""Product quantisation in a graph."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

import torch
from torch import Tensor

from glimmer_export.runtime.codecs import CodecLayout

__all__ = ["decode"]


def decode(_: CodecLayout, values: Mapping[str, Tensor]) -> Tensor:
    """As `GraphDecode`: the stages are added in their order."""
    codebook = values["memory_codebook"]
    stages, groups, centroids, width = codebook.shape
    codes = values["memory"].float().int()
    # One table of all centroids; a stage reads its own codes, so that no more than one stage's values are held.
    table = codebook.reshape(stages * groups * centroids, width)
    places = torch.arange(stages * groups, dtype=torch.int32, device=codes.device).reshape(stages, groups)

    def values_of(stage: Tensor) -> Tensor:
        return table.index_select(0, (codes.index_select(-1, stage) + stage * centroids).flatten())

    return reduce(torch.add, map(values_of, places)).reshape(*codes.shape[:-1], groups * width)
