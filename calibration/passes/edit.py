"""Edits that rewrites share: a new constant, one scaled for one reader, a value multiplied, missing dtypes inferred."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

__all__ = ["CONTENT", "describe", "infer_missing_types", "initializer", "multiplied", "replace_constant"]


def infer_missing_types(model: ir.Model) -> None:
    """Infer by ONNX's own rules, in place; raises ValueError if a type stays unknown."""
    if not _untyped(model.graph):
        return
    from onnx_ir.passes.common import ShapeInferencePass

    ShapeInferencePass()(model)
    if missing := _untyped(model.graph):
        raise ValueError(f"no type can be inferred for {', '.join(missing[:5])}")


def _untyped(graph: ir.Graph) -> list[str]:
    return [str(value.name) for node in graph for value in node.outputs if value.dtype is None]


CONTENT = "content"
"""In the `meta` of a lazy tensor, what it holds: two that agree in this have the same bytes, neither being read."""


def describe(value: ir.Value, name: str | None, like: ir.Value) -> None:
    """Name a new value, and give it the shape of another and a type equal to that one's: types are changed in place."""
    value.name, value.shape = name, like.shape
    value.type = None if like.dtype is None else ir.TensorType(like.dtype)


def initializer(graph: ir.Graph, name: str, content: NDArray[Any] | ir.LazyTensor) -> ir.Value:
    """The constant of that name, made of `content` if there is none."""
    if name not in graph.initializers:
        tensor = content if isinstance(content, ir.LazyTensor) else ir.tensor(content, name=name)
        value = ir.Value(
            name=name, shape=ir.Shape(content.shape), type=ir.TensorType(tensor.dtype), const_value=tensor
        )
        graph.register_initializer(value)
    return graph.initializers[name]


def replace_constant(graph: ir.Graph, node: ir.Node, place: int, factor: float) -> None:
    """Give input `place` of a node a scaled constant: in place if the node alone reads it, else a copy.

    Copies are shared by value: `{name}.x{factor}`, which another reader that asks for the same factor finds.
    """
    value = node.inputs[place]
    if value is None or value.const_value is None:
        raise ValueError(f"input {place} of {node.name} is no constant")
    name = str(value.name)
    if len(value.uses()) > 1:
        name = f"{name}.x{factor:g}"
    array = value.const_value.numpy()
    scaled = array * np.asarray(factor, array.dtype)
    if name == value.name:
        value.const_value = ir.tensor(scaled, name=name)
    else:
        node.replace_input_with(place, initializer(graph, name, scaled))


def multiplied(graph: ir.Graph, value: ir.Value, factor: float, *, take_uses: bool = True) -> ir.Value:
    """`value * factor` as a new value, `{name}.x{factor}`, for all present readers of `value` if `take_uses`."""
    dtype = value.dtype or ir.DataType.FLOAT
    number = initializer(graph, f"factor.{factor:g}", np.asarray(factor, dtype.numpy()))
    output = ir.Value(name=f"{value.name}.x{factor:g}", shape=value.shape, type=ir.TensorType(dtype))
    uses = [(node, place) for node, place in value.uses() if node.op_type != "Shape"]
    node = ir.Node("", "Mul", [value, number], outputs=[output], name=f"{output.name}/Mul")
    producer = value.producer()
    if producer is None:
        graph.insert_before(next(iter(graph)), node)
    else:
        graph.insert_after(producer, node)
    if take_uses:
        for reader, place in uses:
            reader.replace_input_with(place, output)
    return output
