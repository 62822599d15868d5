"""ONNX graph -> files: one file, or a small one beside external data where the weights pass protobuf's 2 GB."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["EXTERNAL_DATA_BYTES", "write_graph"]

EXTERNAL_DATA_BYTES = 2_000_000_000
"""Weights above this go to a file of their own: protobuf messages end at 2 GiB."""


def write_graph(model: ir.Model, directory: Path, name: str) -> list[Path]:
    """Write `name.onnx`, and `name.onnx.data` where needed; returns the files, the model first."""
    import onnx_ir

    path = directory / f"{name}.onnx"
    weights = sum(value.const_value.nbytes for value in model.graph.initializers.values() if value.const_value)
    if weights <= EXTERNAL_DATA_BYTES:
        # What a rewrite left alone may still lie in the file that the graph was read from.
        onnx_ir.external_data.load_to_model(model)
        onnx_ir.save(model, path)
        return [path]
    data = f"{name}.onnx.data"
    onnx_ir.save(model, path, external_data=data, size_threshold_bytes=1024)
    return [path, directory / data]
