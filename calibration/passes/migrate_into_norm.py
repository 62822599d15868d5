"""Move the channels' sizes from what an RMSNorm writes into the weights that read it (SmoothQuant). Exact."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from glimmer_export.calibration.linear import Linear, constant, find_linears, product_input, set_constant
from glimmer_export.calibration.passes.balance import balance
from glimmer_export.calibration.tracked import TrackedRanges

__all__ = ["MigrateIntoNorm"]


class MigrateIntoNorm(InPlacePass):
    """Divide an RMSNorm's weight, and multiply the rows of every projection behind it, by the same factors.

    Only where projections alone read the norm's output: attention that is absorbed into normed states reads them too,
    and so does a graph's output; there `ScaleInputs` scales what the projections read. After the call `balanced` are
    the values that were seen to.
    """

    def __init__(self, ranges: TrackedRanges, strength: float) -> None:
        super().__init__()
        self.ranges, self.strength = ranges, strength
        self.balanced: set[ir.Value] = set()

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every norm whose output has a range."""
        graph = model.graph
        readers: dict[ir.Value, list[Linear]] = {}
        for linear in find_linears(graph):
            if not linear.by_head:
                readers.setdefault(product_input(linear), []).append(linear)
        for normed, linears in readers.items():
            weight = _norm_weight(graph, normed)
            amax = self.ranges.channel_amax(str(normed.name)) if str(normed.name) in self.ranges else None
            if weight is None or amax is None or not _read_by_linears_alone(normed, linears):
                continue
            rows = np.max([np.abs(constant(linear.weight)).max(axis=1) for linear in linears], axis=0)
            factor = balance(amax, rows, self.strength)
            set_constant(weight, (constant(weight) / factor).astype(np.float32))
            for linear in linears:
                set_constant(linear.weight, (constant(linear.weight) * factor[:, None]).astype(np.float32))
            scaled = {normed, *(linear.x for linear in linears)}
            for value in scaled:
                self.ranges.multiply(str(value.name), 1 / factor)
            self.balanced |= scaled
        return PassResult(model, bool(self.balanced))


def _norm_weight(graph: ir.Graph, normed: ir.Value) -> ir.Value | None:
    """The weight of the RMSNorm that writes a value: the initializer of its last product, if it is used once."""
    node = normed.producer()
    if node is None or node.op_type != "Mul":
        return None
    for value in node.inputs:
        if value is not None and value.name in graph.initializers and len(value.uses()) == 1:
            return value if constant(value).ndim == 1 else None
    return None


def _read_by_linears_alone(value: ir.Value, linears: list[Linear]) -> bool:
    products = {linear.node for linear in linears}
    if value.is_graph_output():
        return False
    for node, _ in value.uses():
        if node.op_type == "Slice":
            if not _read_by_linears_alone(node.outputs[0], linears):
                return False
        elif node not in products:
            return False
    return True
