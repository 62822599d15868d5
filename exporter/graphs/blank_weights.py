"""Weights that are traced blank: tracing asks for shapes alone, and contents are read when a graph is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx_ir as ir
    from numpy.typing import NDArray
    from torch import Tensor

    from glimmer_export.exporter.checkpoint import CheckpointConfig
    from glimmer_export.exporter.checkpoint.lazy_tensors import LazyTensors
    from glimmer_export.exporter.stages import GlimmerModel

__all__ = ["READ_ELEMENTS", "BlankWeights"]

READ_ELEMENTS = 8192
"""Weights of up to so many elements are read before a stage is traced.

Of so few alone does the tracer compute (8192), or ask whether they are equal (1024); it may transpose any.
"""


class BlankWeights:
    """A checkpoint's weights as FP32 for a model: the large ones pages of zeros that are never touched."""

    def __init__(self, tensors: LazyTensors) -> None:
        self._tensors = tensors
        # By address; the pages are kept, so that nothing else comes to stand there.
        self._pages: dict[int, tuple[str, NDArray[np.float32]]] = {}

    def model(self, config: CheckpointConfig) -> GlimmerModel:
        """A model to trace stages of, not to run; its large weights take no memory."""
        from glimmer_export.exporter.stages import model_from_weights

        return model_from_weights(config, {name: self._weight(name) for name in self._tensors})

    def filled_model(self, config: CheckpointConfig, names: frozenset[str]) -> GlimmerModel:
        """A model whose weights of these names are there, for the stages that need no other large ones."""
        from glimmer_export.exporter.stages import model_from_weights

        weights = {name: self._tensors[name].float() if name in names else self._weight(name) for name in self._tensors}
        return model_from_weights(config, weights)

    def fill(self, graph: ir.Model) -> frozenset[str]:
        """Let the weights of a traced graph be read from the checkpoint when they are asked for; returns their names.

        A graph's weight may be any view of a checkpoint's: transposed, or of another shape.
        """
        filled = set()
        for value in graph.graph.initializers.values():
            tensor = value.const_value
            if tensor is None or tensor.size <= READ_ELEMENTS:
                continue
            array = tensor.numpy()
            name, pages = self._pages.get(_address(array), ("", None))
            if pages is not None and pages.size == array.size:
                value.const_value = _lazy(self._tensors, name, array, str(value.name))
                filled.add(name)
            elif not array.any():
                raise RuntimeError(f"{value.name} was computed of weights that are blank")
        return frozenset(filled)

    def _weight(self, name: str) -> Tensor:
        import torch

        spec = self._tensors.specs[name]
        if spec.size <= READ_ELEMENTS:
            return self._tensors[name].float()
        pages = np.zeros(spec.shape, np.float32)
        self._pages[_address(pages)] = (name, pages)
        return torch.from_numpy(pages)


def _address(array: NDArray[Any]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def _lazy(tensors: LazyTensors, source: str, view: NDArray[Any], name: str) -> ir.LazyTensor:
    """The same view of the checkpoint's tensor, as FP32."""
    import onnx_ir

    from glimmer_export.calibration.passes.edit import CONTENT

    shape, strides = view.shape, view.strides

    def load() -> ir.TensorProtocol:
        content = tensors[source].float().contiguous().numpy()
        return onnx_ir.tensor(np.lib.stride_tricks.as_strided(content, shape, strides), name=name)

    lazy = onnx_ir.LazyTensor(load, onnx_ir.DataType.FLOAT, onnx_ir.Shape(shape), name=name)
    lazy.meta[CONTENT] = (source, shape, strides)
    return lazy
