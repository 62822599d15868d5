"""Write the contract's dimension names on a graph's inputs and outputs."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from glimmer_export.runtime.contract import GraphIO

__all__ = ["DeclareIO"]


class DeclareIO(InPlacePass):
    """The tracer derives names such as `selected*(passage + question)`; a reader is better served by the contract's.

    Inputs are put into the contract's order too.
    """

    def __init__(self, io: GraphIO) -> None:
        super().__init__()
        self.io = io

    def call(self, model: ir.Model) -> PassResult:
        """Set the shapes; raises ValueError where names or dtypes are not the contract's."""
        order = {tensor.name: place for place, tensor in enumerate(self.io.inputs)}
        inputs = sorted(model.graph.inputs, key=lambda value: order.get(str(value.name), len(order)))
        model.graph.inputs.clear()
        model.graph.inputs.extend(inputs)
        for values, tensors in ((model.graph.inputs, self.io.inputs), (model.graph.outputs, self.io.outputs)):
            found = [(value.name, str(value.dtype)) for value in values]
            expected = [(tensor.name, _ONNX_DTYPES[tensor.dtype]) for tensor in tensors]
            if found != expected:
                raise ValueError(f"graph I/O {found}, expected {expected}")
            for value, tensor in zip(values, tensors, strict=True):
                value.shape = ir.Shape(tensor.dims)
        return PassResult(model, modified=True)


_ONNX_DTYPES = {"float32": "FLOAT", "float16": "FLOAT16", "int8": "INT8", "int32": "INT32", "uint8": "UINT8"}
