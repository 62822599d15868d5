"""Four INT8 codes in one INT32: how a table of codes stands in a graph that TensorRT reads.

TensorRT takes an INT8 constant only in front of a DequantizeLinear (tried), which would dequantise the whole table; an
INT32 one it gathers from as from any other.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from glimmer_export.calibration.passes.edit import initializer

__all__ = ["PLANES", "pack_codes", "unpacked"]

PLANES = 4
"""Codes in one number."""
OFFSET = 128


def pack_codes(codes: NDArray[np.int8]) -> NDArray[np.int32]:
    """Codes (rows, 4 c) int8 -> (rows, c) int32.

    Byte p of column i, counted from the least, is code i + p c, plus 128 but for the last, which carries the sign.
    """
    planes = np.stack(np.split(codes, PLANES, axis=1), axis=-1)
    lifted = (planes.astype(np.int16) + OFFSET).astype(np.uint8)
    lifted[..., -1] = planes[..., -1].view(np.uint8)
    return np.ascontiguousarray(lifted).view("<i4")[..., 0].astype(np.int32)


def unpacked(graph: ir.Graph, packed: ir.Value, before: ir.Node, name: str) -> ir.Value:
    """The codes of gathered rows (..., c) int32, as (..., 4 c) int32, by nodes put in front of `before`.

    Without shifts, which TensorRT's parser does not have: a division of non-negative numbers for each byte.
    """
    made: list[ir.Node] = []

    def number(value: int) -> ir.Value:
        return initializer(graph, f"int32.{value}", np.asarray(value, np.int32))

    def node(op_type: str, *inputs: ir.Value, **attributes: int) -> ir.Value:
        made.append(ir.node(op_type, list(inputs), attributes, name=f"{name}.unpack.{len(made)}"))
        return made[-1].outputs[0]

    negative = node("Less", packed, number(0))
    lifted = node("Add", node("Add", packed, number(2**31 - 1)), number(1))
    rest = node("Where", negative, lifted, packed)
    planes: list[ir.Value] = []
    for place in reversed(range(1, PLANES)):
        size = number(2 ** (8 * place))
        planes.insert(0, node("Div", rest, size))
        rest = node("Sub", rest, node("Mul", planes[0], size))
    planes.insert(0, rest)
    # The last was lifted by 128 if it was negative, the others always.
    lifts = [number(OFFSET)] * (PLANES - 1) + [node("Where", negative, number(OFFSET), number(0))]
    codes = [node("Sub", plane, lift) for plane, lift in zip(planes, lifts, strict=True)]
    together = node("Concat", *codes, axis=-1)
    graph.insert_before(before, made)
    return together
