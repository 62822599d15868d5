"""Balance the channels of a graph's input against the weights that read it. Exact."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult

from calibration.balance import balance
from calibration.linear import Linear, constant, find_linears, set_constant
from calibration.passes.edit import describe, initializer
from calibration.tracked import TrackedRanges

__all__ = ["ScaleInputs"]


class ScaleInputs(InPlacePass):
    """`x W` becomes `(x / f) (f W)`, with `x` an input of the graph and `f` one number a channel.

    `cross_kv` reads the encoder's states so: the norm that wrote them stands in another graph, and what crosses a
    boundary stays in the checkpoint's units. One multiplication serves all products of the input. `ranges` is told of
    the new value.
    """

    def __init__(self, ranges: TrackedRanges, strength: float, names: Collection[str]) -> None:
        super().__init__()
        self.ranges, self.strength, self.names = ranges, strength, names

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite the named products that read an input with a range."""
        graph = model.graph
        readers: dict[ir.Value, list[Linear]] = {}
        for linear in find_linears(graph):
            if linear.name in self.names and not linear.by_head and linear.x.is_graph_input():
                readers.setdefault(linear.x, []).append(linear)
        modified = False
        for value, linears in readers.items():
            amax = self.ranges.channel_amax(str(value.name)) if str(value.name) in self.ranges else None
            if amax is not None:
                self._rewrite(graph, value, linears, amax)
                modified = True
        return PassResult(model, modified)

    def _rewrite(self, graph: ir.Graph, value: ir.Value, linears: list[Linear], amax: NDArray[np.float64]) -> None:
        rows = np.max([np.abs(constant(linear.weight)).max(axis=1) for linear in linears], axis=0)
        factor = balance(amax, rows, self.strength)
        name = f"{value.name}/balanced"
        divisor = initializer(graph, f"{name}.factor", (1 / factor).astype(np.float32))
        node = ir.node("Mul", [value, divisor], name=f"{name}/Mul")
        balanced = node.outputs[0]
        describe(balanced, name, value)
        graph.insert_before(linears[0].node, node)
        for linear in linears:
            linear.node.replace_input_with(0, balanced)
            set_constant(linear.weight, (constant(linear.weight) * factor[:, None]).astype(np.float32))
        self.ranges.copy(str(value.name), name)
        self.ranges.multiply(name, 1 / factor)
