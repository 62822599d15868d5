"""What the passes know of operators: which multiply, which only move values, and which inputs hold what is moved."""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

__all__ = ["MOVERS", "PRODUCTS", "constant", "is_float", "moved_inputs", "scalar"]

PRODUCTS = frozenset({"MatMul", "Gemm"})
"""Matrix products: what a device's tensor cores compute."""

MOVERS = frozenset(
    {
        "Concat", "Expand", "Flatten", "Gather", "GatherElements", "Identity", "Pad", "Reshape", "Slice", "Split",
        "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where",
    }
)  # fmt: skip
"""Operators whose outputs hold values of their inputs, unchanged: no rounding happens in them."""

_FLOATS = (ir.DataType.FLOAT, ir.DataType.FLOAT16)


def is_float(value: ir.Value | None) -> bool:
    """Whether a value is FLOAT or FLOAT16; raises ValueError if its type is unknown (infer the types first)."""
    if value is None:
        return False
    dtype = value.dtype if value.dtype is not None else value.const_value and value.const_value.dtype
    if dtype is None:
        raise ValueError(f"value {value.name} has no type")
    return dtype in _FLOATS


def moved_inputs(node: ir.Node) -> Iterator[ir.Value]:
    """The inputs of a mover that its output holds values of: not shapes, indices, conditions."""
    places: tuple[int, ...] = (0,)
    if node.op_type == "Concat":
        places = tuple(range(len(node.inputs)))
    elif node.op_type == "Where":
        places = (1, 2)
    for place in places:
        value = node.inputs[place]
        if value is not None:
            yield value


def constant(value: ir.Value | None) -> ir.TensorProtocol | None:
    """The tensor of an initializer; None for what a node or the caller gives."""
    if value is None or value.producer() is not None or value.is_graph_input():
        return None
    return value.const_value


def scalar(value: ir.Value | None) -> float | None:
    """The number that an initializer of one element holds."""
    tensor = constant(value)
    return float(tensor.numpy().reshape(-1)[0]) if tensor is not None and tensor.size == 1 else None
