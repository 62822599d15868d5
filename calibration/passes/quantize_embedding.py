"""Store an embedding table as INT8 or FP16 rows, scaled behind the Gather: only the rows of a text are touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes import InPlacePass, PassResult

from glimmer_export.calibration.linear import constant
from glimmer_export.calibration.passes.edit import describe, initializer
from glimmer_export.calibration.passes.insert_qdq import quantize_weight, representable
from glimmer_export.calibration.passes.packed_codes import PLANES, pack_codes, unpacked
from glimmer_export.calibration.scheme import Scheme

__all__ = ["QuantizeEmbedding", "find_lookups"]


class QuantizeEmbedding(InPlacePass):
    """Gather(table, ids) becomes Gather(codes, ids) in float, times Gather(scales, ids): one scale a row.

    Lookups are those by a graph's own ids; `keep(name)` names those that stay in float. So does, where four codes are
    packed in one, a table whose rows do not divide by four; `left` names it after the call. `half(name)` names those
    whose codes are FP16, from -1 to 1 whatever the row's size: twice the bytes of INT8, and a 30th of its error.
    """

    def __init__(
        self, scheme: Scheme, keep: Callable[[str], bool], half: Callable[[str], bool] = lambda _: False
    ) -> None:
        super().__init__()
        self.scheme, self.keep, self.half = scheme, keep, half
        self.left: list[str] = []

    def call(self, model: ir.Model) -> PassResult:
        """Rewrite every lookup that is not kept."""
        graph = model.graph
        modified = False
        for node in [node for node in find_lookups(graph) if not self.keep(str(node.name))]:
            table, ids = node.inputs
            assert table is not None
            half = self.half(str(node.name))
            packs = self.scheme.packed_tables and not half
            if packs and constant(table).shape[1] % PLANES:
                self.left.append(str(node.name))
                continue
            codes, scale = (_half_rows if half else _int8_rows)(constant(table), self.scheme)
            name = str(table.name)
            stored = initializer(graph, f"{name}.codes", pack_codes(codes) if packs else codes)
            row_scale = initializer(graph, f"{name}.scale", scale[:, None])
            rows = ir.node("Gather", [stored, ids], name=f"{node.name}.codes")
            graph.insert_before(node, rows)
            found = unpacked(graph, rows.outputs[0], node, str(node.name)) if packs else rows.outputs[0]
            cast = ir.node("Cast", [found], {"to": ir.DataType.FLOAT}, name=f"{node.name}.cast")
            scales = ir.node("Gather", [row_scale, ids], name=f"{node.name}.scale")
            product = ir.node("Mul", [cast.outputs[0], scales.outputs[0]], name=f"{node.name}.dequantize")
            embedded, old = product.outputs[0], node.outputs[0]
            describe(embedded, None, old)
            graph.insert_before(node, [cast, scales, product])
            ir.convenience.replace_all_uses_with(old, embedded, replace_graph_outputs=True)
            graph.remove(node, safe=True)
            embedded.name = old.name
            if not table.uses():
                del graph.initializers[name]
            modified = True
        return PassResult(model, modified)


def _int8_rows(table: NDArray[np.float32], scheme: Scheme) -> tuple[NDArray[Any], NDArray[np.float32]]:
    return quantize_weight(table, 0, scheme)


def _half_rows(table: NDArray[np.float32], scheme: Scheme) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Rows divided by their largest number, in FP16, and these numbers (rows,)."""
    scale = representable(np.abs(table).max(axis=1), scheme)
    return (table / scale[:, None]).astype(np.float16), scale


def find_lookups(graph: ir.Graph) -> list[ir.Node]:
    """Every Gather of a table's rows by ids that the graph takes in."""
    return [node for node in graph if _is_lookup(graph, node)]


def _is_lookup(graph: ir.Graph, node: ir.Node) -> bool:
    """A lookup by the graph's own ids, reshaped or not."""
    if node.op_type != "Gather" or node.inputs[0] is None or node.inputs[0].name not in graph.initializers:
        return False
    ids = node.inputs[1]
    while ids is not None and (mover := ids.producer()) is not None and mover.op_type == "Reshape":
        ids = mover.inputs[0]
    return constant(node.inputs[0]).ndim == 2 and ids is not None and ids.is_graph_input()
