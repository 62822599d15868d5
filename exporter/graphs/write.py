"""ONNX graph -> a small file whose weights lie in the bundle's weights file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glimmer_export.exporter.graphs.weights_file import WeightsFile

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["EXTERNAL_BYTES", "WEIGHTS_DIGEST", "WrittenGraph", "write_graph"]

EXTERNAL_BYTES = 1024
"""Tensors of this size and more lie in the weights file: less is not worth a page of its own."""
WEIGHTS_DIGEST = "weights_sha256"
"""A graph's note of its weights' content, so that the digest of its file covers them wherever they lie."""


@dataclass(frozen=True)
class WrittenGraph:
    """A graph's own file as it was written, its size, and the bytes that it reads from the weights file."""

    path: Path
    own_bytes: int
    weight_bytes: int

    @property
    def num_bytes(self) -> int:
        """What the graph takes where it shares nothing."""
        return self.own_bytes + self.weight_bytes


def write_graph(model: ir.Model, name: str, weights: WeightsFile) -> WrittenGraph:
    """Write `name.onnx` beside the weights file; the model's large tensors are those of the file from then on."""
    import onnx_ir

    digest, placed = hashlib.sha256(), {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None:
            continue
        if tensor.nbytes >= EXTERNAL_BYTES:
            external, sha256 = weights.place(tensor)
            digest.update(f"{value.name} {sha256}\n".encode())
            placed[external.offset] = external.nbytes
            value.const_value = external
        elif isinstance(tensor, onnx_ir.ExternalTensor):
            value.const_value = onnx_ir.tensor(np.array(tensor.numpy()), name=str(tensor.name))
    model.metadata_props[WEIGHTS_DIGEST] = digest.hexdigest()
    path = weights.path.with_name(f"{name}.onnx")
    onnx_ir.save(model, path)
    weights.flush()
    return WrittenGraph(path, path.stat().st_size, sum(placed.values()))
