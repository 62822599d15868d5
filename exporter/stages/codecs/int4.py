"""The int4 codec in a graph."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from glimmer_export.runtime.codecs import CodecLayout
from glimmer_export.runtime.codecs.contract import CODE_ZERO
from glimmer_export.runtime.codecs.int4 import GROUP_CHANNELS, INT4_LIMIT

__all__ = ["decode"]


def decode(_: CodecLayout, values: Mapping[str, Tensor]) -> Tensor:
    """As `GraphDecode`. Channel j is the low half of byte j, channel j + half the high half."""
    packed = values["memory"].float()
    high = torch.floor(packed * (1 / 16))
    nibbles = torch.cat([packed - high * 16, high], dim=-1) - INT4_LIMIT
    groups = values["memory_group_scale"].float().unsqueeze(-1)
    grouped = (nibbles.unflatten(-1, (-1, GROUP_CHANNELS)) * groups).flatten(-2)
    both = torch.cat([grouped, values["memory_outliers"].float() - CODE_ZERO], dim=-1)
    return both.index_select(-1, values["memory_channel_order"]) * values["memory_channel_scale"]
