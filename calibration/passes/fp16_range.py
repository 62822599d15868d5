"""How large a value of a graph was seen to be, through renamed, cast and quantised values."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from glimmer_export.calibration.fp16_limits import FP32_LOWEST, MASKED
from glimmer_export.calibration.passes.operators import MOVERS, constant, moved_inputs, scalar
from glimmer_export.calibration.tracked import TrackedRanges

__all__ = ["amax_of", "is_masked"]

def is_masked(value: ir.Value | None) -> bool:
    """Whether a value holds the mask's constant: a Where that fills with it, moved or joined with others."""
    node = value.producer() if value is not None else None
    if node is None:
        number = scalar(value)
        return number is not None and number in {FP32_LOWEST, MASKED}
    if node.op_type in MOVERS or node.op_type == "Cast":
        inputs = [node.inputs[0]] if node.op_type == "Cast" else list(moved_inputs(node))
        return any(is_masked(each) for each in inputs)
    return False


def amax_of(value: ir.Value, tracked: TrackedRanges) -> float | None:
    """Largest magnitude of a value on the calibration data; None if neither it nor its sources were seen.

    A masked position counts as MASKED. What a pass has added without a range of its own is followed to its source.
    """
    tensor = constant(value)
    if tensor is not None:
        return _constant_amax(tensor)
    name = str(value.name)
    for known in (name, name.removesuffix(".fp16"), name.removesuffix(".fp32")):
        if known in tracked and (amax := tracked.amax(known)) < -FP32_LOWEST / 2:
            return amax
    node = value.producer()
    return None if node is None else _computed_amax(node, tracked)


def _computed_amax(node: ir.Node, tracked: TrackedRanges) -> float | None:
    """For values that the table has not, or has with the mask's constant in them."""
    if node.op_type == "DequantizeLinear" and (scale := constant(node.inputs[1])) is not None:
        return 128 * float(np.abs(scale.numpy()).max(initial=0.0))
    if node.op_type in MOVERS or node.op_type in {"Cast", "QuantizeLinear"}:
        inputs = list(moved_inputs(node)) if node.op_type in MOVERS else [node.inputs[0]]
    elif node.op_type in {"Add", "Mul"}:
        inputs = list(node.inputs)
    else:
        return None
    found = [amax_of(each, tracked) for each in inputs if each is not None]
    known = [amax for amax in found if amax is not None]
    if len(known) < len(found):
        return None
    if node.op_type == "Add":
        return sum(known)
    return float(np.prod(known)) if node.op_type == "Mul" else max(known)


def _constant_amax(tensor: ir.TensorProtocol) -> float:
    array = tensor.numpy().astype(np.float32, copy=False)
    masked = array == FP32_LOWEST
    largest = np.max(np.abs(array), initial=0.0, where=np.isfinite(array) & ~masked)
    return max(float(largest), -MASKED if masked.any() else 0.0)
