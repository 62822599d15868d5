"""The int8 codec in a graph."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from glimmer_export.runtime.codecs import CodecLayout
from glimmer_export.runtime.codecs.contract import CODE_ZERO

__all__ = ["decode"]


def decode(_: CodecLayout, values: Mapping[str, Tensor]) -> Tensor:
    """As `GraphDecode`."""
    return (values["memory"].float() - CODE_ZERO) * values["memory_channel_scale"]
