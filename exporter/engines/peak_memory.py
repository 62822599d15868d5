"""The most memory that compiling a graph is expected to take, said before it begins."""

from __future__ import annotations

from glimmer_export.runtime.contract import GraphEntry

__all__ = ["peak_bytes"]

BASE_BYTES = 400_000_000
PER_BYTE = 8
"""Measured with TensorRT-RTX at base size (docs/measurements/tensorrt-rtx-base.md): up to 8 times the size of a graph's
files, beside Python and the libraries. Not measured of TensorRT itself, which takes memory of the GPU too."""


def peak_bytes(graph: GraphEntry) -> int:
    """An estimate from above, in bytes of this machine's memory, from the size of a graph with its weights."""
    return BASE_BYTES + PER_BYTE * graph.num_bytes
