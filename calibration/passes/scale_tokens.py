"""Give each token a scale of its own in front of a product: INT8 codes then fit every token, not only the largest."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from glimmer_export.calibration.linear import Linear, constant, find_linears
from glimmer_export.calibration.passes.edit import initializer
from glimmer_export.calibration.tracked import TrackedRanges

__all__ = ["ScaleTokens"]

SMALLEST = np.float32(2.0**-14)
"""The smallest normal float16: a token below it is divided by this, so that a row of zeros stays one."""


class ScaleTokens(InPlacePass):
    """`x W` becomes `((x / t) W) t`, with `t` the largest magnitude of each token's row of x. Exact.

    T5's feed-forward products differ between tokens by more than INT8 can hold at once. What the product reads is then
    between -1 and 1 for every token, whatever the calibration saw, with constant scales as TensorRT wants them.
    Products that read one value share its division; each head's row of a query is a token of its own. `ranges` is told
    of the new values.
    """

    def __init__(self, ranges: TrackedRanges, names: Collection[str]) -> None:
        super().__init__()
        self.ranges, self.names = ranges, names

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite the named products."""
        graph = model.graph
        scaled: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        linears = [linear for linear in find_linears(graph) if linear.name in self.names]
        for linear in linears:
            if linear.x not in scaled:
                scaled[linear.x] = self._divide(graph, linear)
            unit, size = scaled[linear.x]
            linear.node.replace_input_with(0, unit)
            self._multiply(graph, linear, size)
        return PassResult(model, bool(linears))

    def _divide(self, graph: ir.Graph, linear: Linear) -> tuple[ir.Value, ir.Value]:
        x, name = linear.x, str(linear.x.name)
        last = initializer(graph, "last_axis", np.array([-1]))
        smallest = initializer(graph, "smallest_token", np.asarray(SMALLEST))
        magnitude = ir.node("Abs", [x], name=f"{name}/Abs")
        peak = ir.node("ReduceMax", [magnitude.outputs[0], last], {"keepdims": 1}, name=f"{name}/ReduceMax")
        size = ir.node("Max", [peak.outputs[0], smallest], name=f"{name}/Max")
        unit = ir.node("Div", [x, size.outputs[0]], name=f"{name}/Div")
        row = None if x.shape is None else ir.Shape([*x.shape[:-1], 1])
        for node, suffix, shape in (
            (magnitude, "magnitude", x.shape), (peak, "peak", row), (size, "token_scale", row), (unit, "unit", x.shape)
        ):
            _describe(node.outputs[0], f"{name}/{suffix}", shape)
        amax = self.ranges.amax(name)
        for suffix in ("magnitude", "peak", "token_scale"):
            self.ranges.define(f"{name}/{suffix}", 0.0, max(amax, float(SMALLEST)))
        self.ranges.define(f"{name}/unit", -1.0, 1.0)
        graph.insert_before(linear.node, [magnitude, peak, size, unit])
        return unit.outputs[0], size.outputs[0]

    def _multiply(self, graph: ir.Graph, linear: Linear, size: ir.Value) -> None:
        output, name = linear.output, str(linear.output.name)
        restored = ir.node("Mul", [output, size], name=f"{linear.name}/Mul")
        ir.convenience.replace_all_uses_with(output, restored.outputs[0], replace_graph_outputs=True)
        restored.replace_input_with(0, output)
        output.name = f"{name}/unit"
        _describe(restored.outputs[0], name, output.shape)
        bound = float(np.abs(constant(linear.weight)).sum(axis=-2).max())
        self.ranges.define(f"{name}/unit", -bound, bound)
        graph.insert_after(linear.node, restored)


def _describe(value: ir.Value, name: str, shape: ir.Shape | None) -> None:
    value.name, value.dtype, value.shape = name, ir.DataType.FLOAT, shape
