"""The products of a graph that have a weight: what equalisation balances and Q/DQ surrounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["Linear", "constant", "find_linears", "product_input", "set_constant", "shared_weights"]


@dataclass(frozen=True)
class Linear:
    """`node` multiplies `x` (..., K) by the initializer `weight`, (K, N), or (heads, K, N) if it is one a head."""

    node: ir.Node
    x: ir.Value
    weight: ir.Value

    @property
    def name(self) -> str:
        """The node's name, which ends in `/MatMul` behind the module it comes from."""
        return str(self.node.name)

    @property
    def by_head(self) -> bool:
        """Whether each head has a weight of its own."""
        return constant(self.weight).ndim == 3

    @property
    def output(self) -> ir.Value:
        """What the product writes."""
        return self.node.outputs[0]


def find_linears(graph: ir.Graph) -> list[Linear]:
    """Every MatMul whose second input is a float initializer of two or three dimensions, in the graph's order.

    A weight that another node reads too is left out: it cannot be changed for one of them.
    """
    linears = []
    for node in graph:
        if node.op_type != "MatMul":
            continue
        x, weight = node.inputs
        if x is None or weight is None or weight.name not in graph.initializers or len(weight.uses()) != 1:
            continue
        if constant(weight).ndim in (2, 3):
            linears.append(Linear(node, x, weight))
    return linears


def shared_weights(graph: ir.Graph) -> list[str]:
    """Names of the products that `find_linears` leaves out: their weight has other readers, or is moved at each run."""
    found = {linear.node for linear in find_linears(graph)}
    return [
        str(node.name) for node in graph
        if node.op_type in ("MatMul", "Gemm") and node not in found and _is_weight(graph, node.inputs[1])
    ]


def _is_weight(graph: ir.Graph, value: ir.Value | None) -> bool:
    while value is not None and (node := value.producer()) is not None and node.op_type in ("Reshape", "Transpose"):
        value = node.inputs[0]
    return value is not None and value.name in graph.initializers and constant(value).ndim > 1


def constant(value: ir.Value | None) -> NDArray[np.float32]:
    """The numbers of an initializer."""
    assert value is not None
    assert value.const_value is not None
    return cast("NDArray[np.float32]", value.const_value.numpy())


def set_constant(value: ir.Value, array: NDArray[np.generic]) -> None:
    """Give an initializer other numbers, of any dtype and shape."""
    value.const_value = ir.tensor(np.ascontiguousarray(array), name=value.name)
    value.dtype, value.shape = value.const_value.dtype, ir.Shape(array.shape)


def product_input(linear: Linear) -> ir.Value:
    """What the linear reads, seen through slices of its rows: the value whose channels its weight's rows meet."""
    value = linear.x
    while (node := value.producer()) is not None and node.op_type == "Slice":
        value = cast("ir.Value", node.inputs[0])
    return value
