"""The fp16 codec in a graph."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from glimmer_export.runtime.codecs import CodecLayout

__all__ = ["decode"]


def decode(_: CodecLayout, values: Mapping[str, Tensor]) -> Tensor:
    """As `GraphDecode`: the codes themselves."""
    return values["memory"].float()
