"""Balance the channels of what products read where no weight before them can take the factors. Exact."""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult

from glimmer_export.calibration.linear import Linear, constant, find_linears, set_constant
from glimmer_export.calibration.passes.balance import balance
from glimmer_export.calibration.passes.edit import describe, initializer
from glimmer_export.calibration.tracked import TrackedRanges

__all__ = ["ScaleInputs"]


class ScaleInputs(InPlacePass):
    """`x W` becomes `(x / f) (f W)`, with f one number a channel: one multiplication for all products that read x.

    What the other passes do for nothing, by a weight that writes x, and cannot do everywhere: `cross_kv` reads the
    encoder's states, whose norm stands in another graph; `o` of the decoder reads a mean of values that a cache holds,
    in the checkpoint's units as all that crosses a boundary; attention that is absorbed reads a norm's output beside
    its query's projection. `balanced` are the values that those passes have seen to. `strength` gives that of a
    product, None to leave it alone. `ranges` is told of the new values.

    After the call, `scaled` names the products that read a value so scaled, and `unknown` those that could not be
    balanced for want of a range by channel.
    """

    def __init__(
        self,
        ranges: TrackedRanges,
        strength: Callable[[str], float | None],
        names: Collection[str],
        balanced: Collection[ir.Value] = (),
    ) -> None:
        super().__init__()
        self.ranges, self.strength, self.names, self.balanced = ranges, strength, names, balanced
        self.scaled: list[str] = []
        self.unknown: list[str] = []

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite the named products that nothing else has balanced."""
        graph = model.graph
        readers: dict[ir.Value, list[Linear]] = {}
        for linear in find_linears(graph):
            if linear.name in self.names and not linear.by_head and linear.x not in self.balanced:
                readers.setdefault(linear.x, []).append(linear)
        for value, linears in readers.items():
            strengths = [strength for linear in linears if (strength := self.strength(linear.name)) is not None]
            if not strengths:
                continue
            amax = self.ranges.channel_amax(str(value.name)) if str(value.name) in self.ranges else None
            if amax is None:
                self.unknown += [linear.name for linear in linears]
            else:
                self._rewrite(graph, value, linears, amax, max(strengths))
                self.scaled += [linear.name for linear in linears]
        return PassResult(model, bool(self.scaled))

    def _rewrite(
        self, graph: ir.Graph, value: ir.Value, linears: list[Linear], amax: NDArray[np.float64], strength: float
    ) -> None:
        rows = np.max([np.abs(constant(linear.weight)).max(axis=1) for linear in linears], axis=0)
        factor = balance(amax, rows, strength)
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
