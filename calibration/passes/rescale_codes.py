"""Bring memory codes near 1 where products read them before their scale is applied: exact, and FP16 then holds them."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from glimmer_export.calibration.passes.edit import infer_missing_types, multiplied
from glimmer_export.calibration.passes.operators import MOVERS, PRODUCTS, constant
from glimmer_export.calibration.tracked import TrackedRanges

__all__ = ["RescaleCodes"]

EXPONENT = 14
"""The fp16 codec stores each passage's largest value between 2**14 and 2**15 (runtime/codecs/fp16.py)."""


class RescaleCodes(InPlacePass):
    """codes * 2**-14 and memory_scale * 2**14, in a graph of lazy stage A that multiplies raw codes.

    There the product of codes and probes would pass FP16's largest number, and the attention weights times the
    normalising factor would fall below its smallest. With both moved, the codes are at most 2 and the factor is that
    of states near 1. Graphs that decode their memory first are left alone. A power of two rounds nothing in FP32; cast
    to FP16, a code below 2**-14 of its passage's largest loses bits, 2**-25 of that largest at most.
    """

    def __init__(self, tracked: TrackedRanges | None = None) -> None:
        super().__init__()
        self.tracked = tracked if tracked is not None else TrackedRanges({})

    def call(self, model: ir.Model) -> PassResult:
        """Rescale an FP32 graph; `tracked` is told what changes."""
        infer_missing_types(model)
        graph = model.graph
        inputs = {str(value.name): value for value in graph.inputs}
        states = [
            node.outputs[0] for node in graph
            if node.op_type == "Cast" and node.inputs[0] is inputs.get("memory") and _reaches_product(node.outputs[0])
        ]
        if not states or "memory_scale" not in inputs:
            return PassResult(model, modified=False)
        exponents = {multiplied(graph, value, 2.0**-EXPONENT): -EXPONENT for value in states}
        exponents[multiplied(graph, inputs["memory_scale"], 2.0**EXPONENT)] = EXPONENT
        self._track(graph, exponents)
        return PassResult(model, modified=True)

    def _track(self, graph: ir.Graph, exponents: dict[ir.Value, int]) -> None:
        """Follow the powers of two through what reads them, to where they cancel."""
        for node in graph:
            if not any(value in exponents for value in node.inputs) or node.outputs[0] in exponents:
                continue
            exponent = _exponent(node, [exponents.get(value, 0) if value else 0 for value in node.inputs])
            if exponent:
                exponents[node.outputs[0]] = exponent
                self.tracked.multiply(str(node.outputs[0].name), 2.0**exponent)


def _exponent(node: ir.Node, inputs: list[int]) -> int:
    """The power of two by which a node's result changes; raises ValueError if that depends on the values."""
    if node.op_type in PRODUCTS or node.op_type == "Mul":
        return sum(inputs)
    if node.op_type in MOVERS or node.op_type == "ReduceMean":
        return inputs[0]
    if node.op_type == "Sqrt" and inputs[0] % 2 == 0:
        return inputs[0] // 2
    if node.op_type == "Reciprocal":
        return -inputs[0]
    raise ValueError(f"{node.name} ({node.op_type}) reads memory codes whose scale was moved")


def _reaches_product(value: ir.Value) -> bool:
    """Whether a product reads a value, or what is moved of it, before anything else is done to it."""
    for node in value.consumers():
        if node.op_type in PRODUCTS or (node.op_type in MOVERS and _reaches_product(node.outputs[0])):
            return constant(value) is None
    return False
