"""Bring every weight into the form that a MatMul reads: reshaped and transposed once, here, instead of at each run."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult

from glimmer_export.calibration.linear import constant
from glimmer_export.calibration.passes.edit import describe, initializer

__all__ = ["FoldWeights"]


class FoldWeights(InPlacePass):
    """Reshape and Transpose of an initializer become an initializer; a Gemm without bias becomes a MatMul.

    What is folded stays a view of what it is folded from, until it is written. A MatMul so found is named by its
    weight, `...EncDecAttention.k/MatMul`, if the tracer had no name for it.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Fold; raises ValueError for a Gemm that is no plain product."""
        graph = model.graph
        modified = False
        for node in list(graph):
            if node.op_type in ("Reshape", "Transpose") and (source := _weight(graph, node, 0)) is not None:
                folded = _folded(node, constant(source), graph)
                if folded is not None:
                    _replace(graph, node.outputs[0], folded, f"{source.name}.{node.op_type.lower()}")
                    graph.remove(node, safe=True)
                    modified = True
            elif node.op_type == "Gemm":
                _gemm_to_matmul(graph, node)
                modified = True
        _drop_unused(graph)
        _name_products(graph)
        return PassResult(model, modified)


def _weight(graph: ir.Graph, node: ir.Node, place: int) -> ir.Value | None:
    """Input `place` of a node if it is a float initializer."""
    value = node.inputs[place] if len(node.inputs) > place else None
    known = value is not None and value.name in graph.initializers and value.dtype == ir.DataType.FLOAT
    return value if known else None


def _folded(node: ir.Node, weight: NDArray[np.float32], graph: ir.Graph) -> NDArray[np.float32] | None:
    if node.op_type == "Transpose":
        permutation = node.attributes.get_ints("perm", tuple(reversed(range(weight.ndim))))
        return np.transpose(weight, permutation)
    shape = node.inputs[1]
    if shape is None or shape.name not in graph.initializers:
        return None
    return weight.reshape(constant(shape).astype(np.int64))


def _gemm_to_matmul(graph: ir.Graph, node: ir.Node) -> None:
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    scaled = attributes.get("alpha", 1.0) != 1.0 or attributes.get("transA", 0)
    bias = len(node.inputs) > 2 and node.inputs[2] is not None
    weight = _weight(graph, node, 1)
    if scaled or bias or weight is None:
        raise ValueError(f"{node.name}: a Gemm that is more than a product with a weight")
    if attributes.get("transB", 0):
        weight = initializer(graph, f"{weight.name}.transpose", constant(weight).T)
    product = ir.node("MatMul", [node.inputs[0], weight], name=str(node.name).replace("Gemm", "MatMul"))
    _take_over(product.outputs[0], node.outputs[0])
    graph.insert_before(node, product)
    ir.convenience.replace_all_uses_with(node.outputs[0], product.outputs[0], replace_graph_outputs=True)
    graph.remove(node, safe=True)


def _take_over(new: ir.Value, old: ir.Value) -> None:
    describe(new, old.name, old)
    old.name = None


def _replace(graph: ir.Graph, old: ir.Value, array: NDArray[np.float32], name: str) -> None:
    ir.convenience.replace_all_uses_with(old, initializer(graph, name, array))


def _drop_unused(graph: ir.Graph) -> None:
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def _name_products(graph: ir.Graph) -> None:
    used: Counter[str] = Counter()
    for node in graph:
        weight = node.inputs[1] if node.op_type == "MatMul" else None
        if weight is not None and weight.name in graph.initializers:
            module = str(weight.name).split(".weight")[0]
            if "/" not in str(node.name) and module != weight.name:
                used[module] += 1
                node.name = f"{module}/MatMul" + (f".{used[module]}" if used[module] > 1 else "")
