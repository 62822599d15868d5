"""What of a bundle's graphs can be FP16 on the calibration data: tensors between graphs, and a whole graph's values."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from glimmer_export.calibration.fp16_limits import FP16_MAX, FP16_SAFE, MASKED, MAX_BIAS, MAX_SCORE, SMALLEST_AMAX
from glimmer_export.calibration.linear import constant
from glimmer_export.calibration.passes.centre_position_bias import find_bias_tables, softmaxes_of
from glimmer_export.calibration.passes.fp16_range import amax_of, is_masked
from glimmer_export.calibration.ranges import GraphRanges
from glimmer_export.calibration.tracked import TrackedRanges
from glimmer_export.runtime.contract import CalibrationError, GraphIO, boundaries_of, boundary_of

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["check_fp16", "fp16_boundaries"]


def fp16_boundaries(
    graphs: Mapping[str, GraphIO], ranges: Mapping[str, GraphRanges], fp16: Collection[str]
) -> dict[str, str | None]:
    """What may cross in FP16, by its name between graphs: None, or why it stays FP32.

    `fp16` are the graphs that compute in FP16; all that read or write a tensor must. A range is that of every graph
    that the tensor was seen in, in checkpoint units, and is held to the limits that a product's operand is held to.
    """
    found: dict[str, str | None] = {}
    for boundary, users in boundaries_of(graphs).items():
        others = [name for name in users if name not in fp16]
        seen = [
            ranges.get(name, {}).get(tensor.name)
            for name in users for tensor in (*graphs[name].inputs, *graphs[name].outputs)
            if boundary_of(tensor.name) == boundary
        ]
        amax = max((one.amax for one in seen if one is not None), default=None)
        if others:
            found[boundary] = f"{others[0]} computes in FP32"
        elif amax is None:
            found[boundary] = "no range of it is known"
        elif amax > FP16_SAFE:
            found[boundary] = f"it reaches {amax:.3g}"
        elif 0 < amax < SMALLEST_AMAX:
            found[boundary] = f"it reaches only {amax:.3g}"
        else:
            found[boundary] = None
    return found


def check_fp16(graph: ir.Graph, tracked: TrackedRanges) -> list[str]:
    """Check every FP16 value of a graph from `ConvertFp16` against what it reached on the calibration data.

    Returns notes: the position-bias tables so large that FP16 rounds their attention's scores by more than 0.01.

    Raises CalibrationError naming the worst tensor and its range: one that passes FP16's largest number, attention
    scores so large that a masked position could be attended or the sum with the mask overflow, or a tensor of which
    nothing is known.
    """
    worst: tuple[float, str] = (0.0, "")
    for value in _half_values(graph):
        if value.is_graph_input():
            continue
        amax = amax_of(value, tracked)
        if amax is None:
            raise CalibrationError(
                f"tensor {value.name}", expected="a range in the calibration table", found="none",
                fix="calibrate this bundle again",
            )
        worst = max(worst, (amax, str(value.name)))
    if worst[0] > FP16_MAX:
        raise CalibrationError(
            f"tensor {worst[1]}", expected=f"at most {FP16_MAX:.0f}, FP16's largest number",
            found=f"{worst[0]:.4g} on the calibration data",
            fix="keep the product that computes it in FP32: --precision fp16 --keep",
        )
    for node in graph:
        if node.op_type == "Add" and any(is_masked(value) and _is_half(value) for value in node.inputs):
            _check_scores(node, tracked)
    return list(_rounded_tables(graph))


def _rounded_tables(graph: ir.Graph) -> Iterator[str]:
    for table in find_bias_tables(graph):
        amax = float(np.abs(constant(table)).max(initial=0.0))
        if amax > MAX_BIAS and any(_is_half(node.outputs[0]) for node in softmaxes_of(table)):
            yield f"{table.name}: position bias reaches {amax:.4g}, where FP16 rounds scores by {amax * 2**-11:.2g}"


def _check_scores(node: ir.Node, tracked: TrackedRanges) -> None:
    for value in node.inputs:
        if value is None or is_masked(value):
            continue
        amax = amax_of(value, tracked) or 0.0
        if amax > MAX_SCORE:
            raise CalibrationError(
                f"attention scores {value.name}", expected=f"at most {MAX_SCORE:.0f} beside a mask of {MASKED:.0f}",
                found=f"{amax:.4g} on the calibration data",
                fix="keep this attention's products in FP32: --precision fp16 --keep",
            )


def _is_half(value: ir.Value | None) -> bool:
    return value is not None and value.dtype is not None and value.dtype.name == "FLOAT16"


def _half_values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from (value for value in graph.initializers.values() if _is_half(value))
    for node in graph:
        yield from (value for value in node.outputs if _is_half(value))
