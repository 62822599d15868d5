"""FP16 graph -> FP32 graph that rounds to FP16 wherever an FP16 operator would, overflow to infinity included."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from glimmer_export.calibration.passes.edit import infer_missing_types
from glimmer_export.calibration.passes.operators import MOVERS

__all__ = ["RoundFp16"]

HALF, SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT

_EXACT = MOVERS | {"Max", "Min", "Neg", "Abs", "Relu", "ReduceMax", "ReduceMin", "Split"}
"""Operators whose results are FP16 numbers when their inputs are: nothing is to be rounded."""


class RoundFp16(InPlacePass):
    """Compute every FP16 operator in FP32 and round its result once: Cast to FLOAT16, Cast back.

    ONNX Runtime's CPU provider computes FP16 graphs in FP32 from end to end, so that nothing overflows there; run this
    graph with its optimisations off instead. A product's sum is accumulated in FP32 and rounded at the end, as tensor
    cores do it; Softmax and Gelu are rounded once too. QuantizeLinear divides in FP32. FP16 inputs and outputs of the
    graph stay FP16.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite the graph, whose values must be typed or let their types be inferred."""
        infer_missing_types(model)
        graph = model.graph
        nodes = list(graph)
        halves = {value for node in nodes for value in node.outputs if value.dtype == HALF}
        for value in list(graph.initializers.values()):
            if value.const_value is not None and value.const_value.dtype == HALF:
                _widen(value)
        for value in graph.inputs:
            if value.dtype == HALF:
                self._insert_casts(graph, value, back_only=True)
        for node in nodes:
            for value in node.outputs:
                if value in halves:
                    self._round(graph, node, value)
        return PassResult(model, modified=True)

    def _round(self, graph: ir.Graph, node: ir.Node, value: ir.Value) -> None:
        """Make an output of `node` FP32, rounded unless it is so already."""
        if node.op_type == "Cast":
            # A cast to FP16 rounds; its readers take the result back in FP32.
            self._insert_casts(graph, value, back_only=True)
            return
        value.dtype = SINGLE
        if node.op_type not in _EXACT or value.is_graph_output():
            self._insert_casts(graph, value, back_only=False)

    @staticmethod
    def _insert_casts(graph: ir.Graph, value: ir.Value, *, back_only: bool) -> None:
        uses = list(value.uses())
        node = value.producer()
        last = value
        casts = []
        if not back_only:
            last = ir.Value(name=f"{value.name}/rounded", shape=value.shape, type=ir.TensorType(HALF))
            casts.append(_cast(value, last))
        if value.is_graph_output():
            name = value.name
            value.name, last.name = (f"{name}/exact", name) if last is not value else (name, name)
            place = next(place for place, output in enumerate(graph.outputs) if output is value)
            graph.outputs[place] = last
        if uses:
            back = ir.Value(name=f"{last.name}/single", shape=value.shape, type=ir.TensorType(SINGLE))
            casts.append(_cast(last, back))
            for consumer, place in uses:
                consumer.replace_input_with(place, back)
        if node is None:
            graph.insert_before(next(iter(graph)), casts)
        else:
            graph.insert_after(node, casts)


def _cast(source: ir.Value, target: ir.Value) -> ir.Node:
    dtype = target.dtype or SINGLE
    return ir.Node("", "Cast", [source], [ir.AttrInt64("to", int(dtype))], outputs=[target], name=f"{target.name}/Cast")


def _widen(value: ir.Value) -> None:
    """An FP16 constant in FP32."""
    if value.const_value is None:
        return
    value.const_value = ir.tensor(value.const_value.numpy().astype(np.float32), name=value.name)
    value.dtype = SINGLE
