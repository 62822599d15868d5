"""Store an embedding table as INT8 rows, dequantised behind the Gather: only the rows that a text has are touched."""

from __future__ import annotations

from collections.abc import Callable

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

from calibration.linear import constant
from calibration.passes.edit import initializer
from calibration.passes.insert_qdq import quantize_weight
from calibration.scheme import Scheme

__all__ = ["QuantizeEmbedding"]


class QuantizeEmbedding(InPlacePass):
    """Gather(table, ids) becomes Gather(codes, ids) in float, times Gather(scales, ids): one scale a row.

    Lookups are those by a graph's own ids; `keep(name)` names those that stay in float.
    """

    def __init__(self, scheme: Scheme, keep: Callable[[str], bool]) -> None:
        super().__init__()
        self.scheme, self.keep = scheme, keep

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every lookup that is not kept."""
        graph = model.graph
        modified = False
        for node in [node for node in graph if not self.keep(str(node.name))]:
            table, ids = _lookup(graph, node)
            if table is None:
                continue
            codes, scale = quantize_weight(constant(table), 0, self.scheme)
            name = str(table.name)
            stored = initializer(graph, f"{name}.codes", codes)
            row_scale = initializer(graph, f"{name}.scale", scale[:, None])
            rows = ir.node("Gather", [stored, ids], name=f"{node.name}.codes")
            cast = ir.node("Cast", [rows.outputs[0]], {"to": ir.DataType.FLOAT}, name=f"{node.name}.cast")
            scales = ir.node("Gather", [row_scale, ids], name=f"{node.name}.scale")
            product = ir.node("Mul", [cast.outputs[0], scales.outputs[0]], name=f"{node.name}.dequantize")
            embedded, old = product.outputs[0], node.outputs[0]
            embedded.type, embedded.shape = old.type, old.shape
            graph.insert_before(node, [rows, cast, scales, product])
            ir.convenience.replace_all_uses_with(old, embedded, replace_graph_outputs=True)
            graph.remove(node, safe=True)
            embedded.name = old.name
            if not table.uses():
                del graph.initializers[name]
            modified = True
        return PassResult(model, modified)


def _lookup(graph: ir.Graph, node: ir.Node) -> tuple[ir.Value | None, ir.Value | None]:
    """Table and ids of a lookup by the graph's own ids, reshaped or not; None where a node is no such lookup."""
    if node.op_type != "Gather" or node.inputs[0] is None or node.inputs[0].name not in graph.initializers:
        return None, None
    table, ids = node.inputs
    source = ids
    while source is not None and (mover := source.producer()) is not None and mover.op_type == "Reshape":
        source = mover.inputs[0]
    found = constant(table).ndim == 2 and source is not None and source.is_graph_input()
    return (table, ids) if found else (None, None)
