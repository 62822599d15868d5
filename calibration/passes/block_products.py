"""Products with a constant matrix -> ONNX Runtime's MatMulNBits, whose weights have 4 or 8 bits and scales a block."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult

from glimmer_export.calibration.block_weights import Quantizer
from glimmer_export.calibration.linear import Linear, constant, find_linears
from glimmer_export.calibration.passes.edit import describe, initializer
from glimmer_export.runtime.contract import BLOCK_DOMAIN, BLOCK_OPERATOR, BLOCK_SIZE

__all__ = ["BlockProducts", "block_candidates"]


def block_candidates(graph: ir.Graph) -> list[Linear]:
    """The products that MatMulNBits computes: of a constant matrix of more than one column, none by head."""
    return [linear for linear in find_linears(graph) if not linear.by_head and constant(linear.weight).shape[1] > 1]


class BlockProducts(InPlacePass):
    """Replace the products that `bits` names, with 4 or 8 bits each.

    `moments` are, by the name of what a product reads, the mean products of its channels, which GPTQ wants. Nodes and
    outputs keep their names; a weight that nothing else reads goes.
    """

    def __init__(
        self, bits: Mapping[str, int], quantizer: Quantizer, accuracy_level: int,
        moments: Mapping[str, NDArray[np.float64]],
    ) -> None:
        super().__init__()
        self.bits, self.quantizer, self.accuracy_level, self.moments = bits, quantizer, accuracy_level, moments

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite; nothing is changed if no product of these names is left."""
        found = [linear for linear in block_candidates(model.graph) if linear.name in self.bits]
        for linear in found:
            self._replace(model.graph, linear)
        if found:
            model.opset_imports[BLOCK_DOMAIN] = 1
        return PassResult(model, bool(found))

    def _replace(self, graph: ir.Graph, linear: Linear) -> None:
        bits, name = self.bits[linear.name], str(linear.weight.name)
        rows, columns = constant(linear.weight).shape
        codes = self.quantizer(constant(linear.weight), bits, self.moments.get(str(linear.x.name)))
        packed, zero_points = codes.packed()
        inputs = [
            linear.x, initializer(graph, f"{name}.blocks", packed),
            initializer(graph, f"{name}.block_scales", codes.scales),
            initializer(graph, f"{name}.block_zero_points", zero_points),
        ]
        attributes = {
            "K": rows, "N": columns, "bits": bits, "block_size": BLOCK_SIZE, "accuracy_level": self.accuracy_level,
        }
        node = ir.node(BLOCK_OPERATOR, inputs, attributes, domain=BLOCK_DOMAIN, name=linear.name)
        output, old = node.outputs[0], linear.output
        describe(output, old.name, old)
        old.name = None
        graph.insert_before(linear.node, node)
        ir.convenience.replace_all_uses_with(old, output, replace_graph_outputs=True)
        graph.remove(linear.node, safe=True)
        if not linear.weight.uses():
            del graph.initializers[name]
