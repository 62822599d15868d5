"""Two edits that exact rewrites share: a constant scaled for one reader, and a value multiplied by a constant."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

__all__ = ["multiplied", "replace_constant"]


def replace_constant(graph: ir.Graph, node: ir.Node, place: int, factor: float) -> None:
    """Give input `place` of a node a scaled constant: in place where the node alone reads it, else a copy.

    Copies are shared by value: `{name}.x{factor}`, which another reader that asks for the same factor finds.
    """
    value = node.inputs[place]
    if value is None or value.const_value is None:
        raise ValueError(f"input {place} of {node.name} is no constant")
    name = str(value.name)
    if len(value.uses()) > 1:
        name = f"{name}.x{factor:g}"
        if name in graph.initializers:
            node.replace_input_with(place, graph.initializers[name])
            return
    array = value.const_value.numpy()
    scaled = ir.tensor(array * np.asarray(factor, array.dtype), name=name)
    if name == value.name:
        value.const_value = scaled
        return
    copy = ir.Value(name=name, shape=scaled.shape, type=ir.TensorType(scaled.dtype), const_value=scaled)
    graph.register_initializer(copy)
    node.replace_input_with(place, copy)


def multiplied(graph: ir.Graph, value: ir.Value, factor: float, *, take_uses: bool = True) -> ir.Value:
    """`value * factor` as a new value, `{name}.x{factor}`, for all present readers of `value` if `take_uses`."""
    dtype = value.dtype or ir.DataType.FLOAT
    number = f"factor.{factor:g}"
    if number not in graph.initializers:
        tensor = ir.tensor(np.asarray(factor, dtype.numpy()), name=number)
        graph.register_initializer(
            ir.Value(name=number, shape=tensor.shape, type=ir.TensorType(dtype), const_value=tensor)
        )
    output = ir.Value(name=f"{value.name}.x{factor:g}", shape=value.shape, type=ir.TensorType(dtype))
    uses = [(node, place) for node, place in value.uses() if node.op_type != "Shape"]
    node = ir.Node("", "Mul", [value, graph.initializers[number]], outputs=[output], name=f"{output.name}/Mul")
    producer = value.producer()
    if producer is None:
        graph.insert_before(next(iter(graph)), node)
    else:
        graph.insert_after(producer, node)
    if take_uses:
        for reader, place in uses:
            reader.replace_input_with(place, output)
    return output
