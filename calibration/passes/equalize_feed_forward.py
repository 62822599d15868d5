"""Balance the channels of the feed-forward product, where T5's outliers are (docs/design.md, section 4). Exact."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from glimmer_export.calibration.linear import Linear, constant, find_linears, set_constant
from glimmer_export.calibration.passes.balance import balance
from glimmer_export.calibration.tracked import TrackedRanges

__all__ = ["EqualizeFeedForward"]


class EqualizeFeedForward(InPlacePass):
    """Divide columns of `wi_1` (ReLU: `wi`), and multiply the rows of `wo` that meet them, by the same factors.

    A gated product is linear in `wi_1` whatever its gate, and ReLU commutes with positive factors, so no output
    changes. Another activation without a gate lets no factor through: `ScaleInputs` scales what `wo` reads. After the
    call `balanced` are the products' inputs that were seen to.
    """

    def __init__(self, ranges: TrackedRanges, strength: float) -> None:
        super().__init__()
        self.ranges, self.strength = ranges, strength
        self.balanced: set[ir.Value] = set()

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite both weights of every feed-forward product that has a range."""
        writers = {linear.output: linear for linear in find_linears(model.graph)}
        for wo in list(writers.values()):
            path = _written_by(wo, writers)
            amax = self.ranges.channel_amax(str(wo.x.name)) if path and str(wo.x.name) in self.ranges else None
            if path is None or amax is None:
                continue
            wi, between = path
            factor = balance(amax, np.abs(constant(wo.weight)).max(axis=-1), self.strength)
            set_constant(wi.weight, (constant(wi.weight) / factor).astype(np.float32))
            set_constant(wo.weight, (constant(wo.weight) * factor[:, None]).astype(np.float32))
            for value in (*between, wo.x):
                self.ranges.multiply(str(value.name), 1 / factor)
            self.balanced.add(wo.x)
        return PassResult(model, bool(self.balanced))


def _written_by(wo: Linear, writers: dict[ir.Value, Linear]) -> tuple[Linear, list[ir.Value]] | None:
    """The linear whose output `wo` reads, but for a gate or ReLU, and the values between; None if nothing is so.

    A product of two values is a gated one where the other depends on the graph's inputs too.
    """
    node = wo.x.producer()
    if node is None or wo.by_head or len(wo.x.uses()) != 1:
        return None
    inputs = [value for value in node.inputs if value is not None]
    gated = node.op_type == "Mul" and len(set(inputs)) == 2 and not any(value.is_initializer() for value in inputs)
    linear = None
    if node.op_type == "Relu" or gated:
        linear = next((writers[value] for value in inputs if value in writers), None)
    if linear is None or linear.by_head or len(linear.output.uses()) != 1:
        return None
    return linear, [linear.output]
