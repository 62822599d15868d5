"""Balance the channels of attention's context between the value and the output projection. Exact."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from glimmer_export.calibration.linear import Linear, constant, find_linears, set_constant
from glimmer_export.calibration.passes.balance import balance
from glimmer_export.calibration.tracked import TrackedRanges

__all__ = ["EqualizeValues"]


class EqualizeValues(InPlacePass):
    """Divide columns of `v`, and multiply the rows of `o` that meet them, by the same factors.

    The context is a weighted mean of values, linear in them. Where values leave or enter the graph in a cache nothing
    is done, as what crosses a boundary stays in the checkpoint's units: `ScaleInputs` scales the context itself. After
    the call `balanced` are the contexts that were seen to.
    """

    def __init__(self, ranges: TrackedRanges, strength: float) -> None:
        super().__init__()
        self.ranges, self.strength = ranges, strength
        self.balanced: set[ir.Value] = set()

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite `v` and `o` of every attention whose context has a range."""
        linears = find_linears(model.graph)
        by_output = {linear.output: linear for linear in linears}
        for output in linears:
            found = _values(output, by_output)
            amax = self.ranges.channel_amax(str(output.x.name)) if str(output.x.name) in self.ranges else None
            if found is None or amax is None:
                continue
            factor = balance(amax, np.abs(constant(output.weight)).max(axis=-1), self.strength)
            weight = constant(found.weight)
            columns = factor.reshape(len(weight), 1, -1) if found.by_head else factor
            set_constant(found.weight, (weight / columns).astype(np.float32))
            set_constant(output.weight, (constant(output.weight) * factor[:, None]).astype(np.float32))
            self.ranges.multiply(str(output.x.name), 1 / factor)
            if not found.by_head:
                self.ranges.multiply(str(found.output.name), 1 / factor)
            self._follow(output, found)
            self.balanced.add(output.x)
        return PassResult(model, bool(self.balanced))

    def _follow(self, output: Linear, found: Linear) -> None:
        """Give what lies between the two products, channels in heads, the magnitude of the ends."""
        context, values = self.ranges.amax(str(output.x.name)), self.ranges.amax(str(found.output.name))
        heads = _step(output.x, "Reshape")
        merged = _step(heads, "Transpose")
        moved = {heads: context, merged: context}
        product = merged.producer() if merged is not None else None
        if product is not None and not found.by_head:
            moved[product.inputs[1]] = values
            moved[_step(product.inputs[1], "Transpose")] = values
        for value, amax in moved.items():
            if value is not None and str(value.name) in self.ranges:
                self.ranges.define(str(value.name), -amax, amax)


def _values(output: Linear, by_output: dict[ir.Value, Linear]) -> Linear | None:
    """The value projection of the context that `output` reads; None if another way leads there.

    Backwards from `o`: Reshape, Transpose, then the product with the values (and back over their Transpose and Reshape
    to the projection), or, absorbed, the projection itself, one weight a head.
    """
    merged = _step(_step(output.x, "Reshape"), "Transpose")
    if merged is None:
        return None
    if merged in by_output:
        linear = by_output[merged]
        return linear if linear.by_head else None
    product = merged.producer()
    if product is None or product.op_type != "MatMul":
        return None
    values = _step(_step(product.inputs[1], "Transpose"), "Reshape")
    found = by_output.get(values) if values is not None else None
    return None if found is None or found.by_head or len(found.output.uses()) != 1 else found


def _step(value: ir.Value | None, op_type: str) -> ir.Value | None:
    """The input of the one node of this kind that writes a value which nothing else reads."""
    if value is None or len(value.uses()) != 1 or value.is_graph_output():
        return None
    node = value.producer()
    if node is None or node.op_type != op_type:
        return None
    return node.inputs[0]
