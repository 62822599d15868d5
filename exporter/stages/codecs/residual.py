"""Residual quantisation with a gain a token, in a graph."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from glimmer_export.exporter.stages.codecs import product
from glimmer_export.runtime.codecs import CodecLayout
from glimmer_export.runtime.codecs.residual import GAINS

__all__ = ["decode"]


def decode(layout: CodecLayout, values: Mapping[str, Tensor]) -> Tensor:
    """As `GraphDecode`: a product's sums, times the gains, which are looked up."""
    codes = values["memory_gain"].float().int()
    gains = torch.tensor(GAINS, device=codes.device).index_select(0, codes.flatten()).reshape(codes.shape)
    return product.decode(layout, values) * gains.unsqueeze(-1)
