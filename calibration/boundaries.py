"""Which tensors go from graph to graph in FP16: those whose range on the calibration data leaves room for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from glimmer_export.calibration.fp16_limits import FP16_SAFE, SMALLEST_AMAX
from glimmer_export.calibration.ranges import GraphRanges
from glimmer_export.runtime.contract import GraphIO, boundaries_of, boundary_of

__all__ = ["fp16_boundaries"]


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
