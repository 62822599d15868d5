"""Store an embedding table as INT8 rows, dequantised behind the Gather: only the rows that a text has are touched."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from calibration.linear import constant
from calibration.passes.insert_qdq import quantize_weight
from calibration.scheme import Scheme

__all__ = ["QuantizeEmbedding"]


class QuantizeEmbedding(InPlacePass):
    """Gather(table, ids) becomes Gather(codes, ids) in float, times Gather(scales, ids): one scale a row."""

    def __init__(self, scheme: Scheme, names: frozenset[str]) -> None:
        super().__init__()
        self.scheme, self.names = scheme, names

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite the named lookups."""
        graph = model.graph
        modified = False
        for node in [node for node in graph if node.op_type == "Gather" and node.name in self.names]:
            table, ids = node.inputs
            codes, scale = quantize_weight(constant(table), 0, self.scheme)
            name = str(table.name)
            stored = [
                ir.val(f"{name}.{part}", const_value=ir.tensor(array, name=f"{name}.{part}"))
                for part, array in (("codes", codes), ("scale", scale[:, None]))
            ]
            for value in stored:
                graph.register_initializer(value)
            rows = ir.node("Gather", [stored[0], ids], name=f"{node.name}.codes")
            cast = ir.node("Cast", [rows.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{node.name}.cast")
            scales = ir.node("Gather", [stored[1], ids], name=f"{node.name}.scale")
            product = ir.node("Mul", [cast.outputs[0], scales.outputs[0]], name=f"{node.name}.dequantize")
            embedded, old = product.outputs[0], node.outputs[0]
            embedded.dtype, embedded.shape = old.dtype, old.shape
            graph.insert_before(node, [rows, cast, scales, product])
            ir.convenience.replace_all_uses_with(old, embedded, replace_graph_outputs=True)
            graph.remove(node, safe=True)
            embedded.name = old.name
            if not table.uses():
                del graph.initializers[name]
            modified = True
        return PassResult(model, modified)
