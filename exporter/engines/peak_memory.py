"""The most memory that compiling a graph is expected to take, said before it begins."""

from __future__ import annotations

from runtime.contract import GraphEntry

__all__ = ["peak_bytes"]

BASE_BYTES = 1 << 30
PER_BYTE = 4.0


def peak_bytes(graph: GraphEntry) -> int:
    """An estimate in bytes of resident memory, from the size of a graph's files."""
    return int(BASE_BYTES + PER_BYTE * sum(file.bytes for file in graph.files))
