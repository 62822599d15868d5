"""Balance weights that each head has for itself, so that one scale for all of them loses nothing."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult

from glimmer_export.calibration.linear import Linear, constant, find_linears, set_constant
from glimmer_export.calibration.passes.balance import balance
from glimmer_export.calibration.passes.edit import initializer
from glimmer_export.calibration.tracked import TrackedRanges

__all__ = ["ScaleHeads"]


class ScaleHeads(InPlacePass):
    """`x_h W_h` becomes `((x_h / f_h) (f_h W_h / c_h)) c_h`: absorbed attention's probes and values. Exact.

    Runtimes take one scale for a product whose weight has three dimensions. So each row of a head is balanced against
    what it meets (f), and each column is brought to the same largest magnitude (c); one token a head
    passes here, so both multiplications are small. `ranges` is told of the new values.
    """

    def __init__(self, ranges: TrackedRanges, strength: float, names: Collection[str]) -> None:
        super().__init__()
        self.ranges, self.strength, self.names = ranges, strength, names

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite the named products whose weight is one a head."""
        linears = [item for item in find_linears(model.graph) if item.name in self.names and item.by_head]
        for linear in linears:
            self._rewrite(model.graph, linear)
        return PassResult(model, bool(linears))

    def _rewrite(self, graph: ir.Graph, linear: Linear) -> None:
        weight, x, output = constant(linear.weight), linear.x, linear.output
        name = str(x.name)
        amax = self.ranges.channel_amax(name)
        seen = np.full(weight.shape[1], self.ranges.amax(name)) if amax is None else amax
        rows = np.stack([balance(seen, np.abs(head).max(axis=1), self.strength) for head in weight])
        balanced = weight * rows[:, :, None]
        columns = np.maximum(np.abs(balanced).max(axis=1), np.finfo(np.float32).tiny)
        set_constant(linear.weight, (balanced / columns[:, None, :]).astype(np.float32))
        divided = _times(graph, x, 1 / rows, f"{linear.name}/rows")
        linear.node.replace_input_with(0, divided.outputs[0])
        graph.insert_before(linear.node, divided)
        reach = float((seen / rows).max())
        self.ranges.define(str(divided.outputs[0].name), -reach, reach)
        restored = _times(graph, output, columns, f"{linear.name}/columns")
        ir.convenience.replace_all_uses_with(output, restored.outputs[0], replace_graph_outputs=True)
        restored.replace_input_with(0, output)
        restored.outputs[0].name, output.name = output.name, f"{output.name}/balanced"
        graph.insert_after(linear.node, restored)
        bound = reach * weight.shape[1]
        self.ranges.define(str(output.name), -bound, bound)


def _times(graph: ir.Graph, value: ir.Value, factor: NDArray[np.float64], name: str) -> ir.Node:
    """A node that multiplies (b, heads, q, channels) by (heads, channels)."""
    by_head = initializer(graph, f"{name}.factor", factor[:, None, :].astype(np.float32))
    node = ir.node("Mul", [value, by_head], name=f"{name}/Mul")
    product = node.outputs[0]
    product.name, product.dtype, product.shape = name, ir.DataType.FLOAT, value.shape
    return node
