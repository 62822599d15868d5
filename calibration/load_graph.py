"""A graph file with its weights, as onnx_ir has them, also if the file beside it is a link to where they lie."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glimmer_export.runtime.contract import BundleError, map_regular

if TYPE_CHECKING:
    import onnx_ir

__all__ = ["load_graph"]

FIX = "copy the bundle again"


def load_graph(path: Path) -> onnx_ir.Model:
    """The graph of a verified bundle; its weights are read, from the file, when they are asked for.

    Products that were merged are split: passes, patterns and ranges know each by its own name (`merge_products.py`).
    onnx_ir reads no file through a link that leads out of the graph's folder, nor one that has a second name, as those
    of a download cache are and have. Of such a file it is given the bytes, mapped. Raises BundleError.
    """
    import onnx_ir

    from glimmer_export.calibration.passes.merge_products import SplitProducts

    model = onnx_ir.load(path)
    files: dict[Path, Any] = {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if not isinstance(tensor, onnx_ir.ExternalTensor) or not _lies_elsewhere(place := Path(tensor.path)):
            continue
        if place not in files:
            files[place] = map_regular(place, error=BundleError, subject=f"graph {path}, {place.name}", fix=FIX)
        value.const_value = _mapped(tensor, files[place])
    SplitProducts()(model)
    return model


def _lies_elsewhere(file: Path) -> bool:
    return not file.resolve().is_relative_to(file.parent.resolve()) or os.stat(file).st_nlink > 1  # noqa: PTH116


def _mapped(tensor: onnx_ir.ExternalTensor, content: Any) -> onnx_ir.TensorProtocol:
    """The tensor on mapped bytes; as it was where numpy has not its type, or nothing is in it."""
    import onnx_ir

    dtype, shape = tensor.dtype, tensor.shape.numpy()
    count = int(np.prod(shape, dtype=np.int64))
    if not count or dtype.itemsize < 1:
        return tensor
    values = np.frombuffer(content, dtype.numpy(), count, tensor.offset or 0).reshape(shape)
    return onnx_ir.Tensor(values, dtype=dtype, name=tensor.name, doc_string=tensor.doc_string)
