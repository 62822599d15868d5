"""Name nodes and weights by the module they come from, so that a report or a regular expression can speak of them."""

from __future__ import annotations

import ast
from collections import Counter

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

__all__ = ["NameNodes"]

SCOPES = "pkg.torch.onnx.name_scopes"

_WEIGHTS = {"MatMul": (1, "weight"), "Gemm": (1, "weight"), "Gather": (0, "table")}
"""Operators that read a weight: at which input, and what the constant is called below its module."""


class NameNodes(InPlacePass):
    """`live_encoder.block.2.layer.0.SelfAttention.q/MatMul`, and `...SelfAttention.q.weight` for its constant.

    Runs before the metadata is stripped, as that is where the tracer keeps the module's path.
    """

    def call(self, model: ir.Model) -> PassResult:
        """Rename every node, and every initializer that one projection alone reads."""
        used: Counter[str] = Counter()
        for node in model.graph:
            scope = _scope(node)
            name = f"{scope}/{node.op_type}" if scope else node.op_type
            node.name = _unique(name, used)
            if node.op_type in _WEIGHTS:
                self._name_weight(model.graph, node, scope)
        for name in list(model.graph.initializers):
            if name.startswith("model."):
                _rename(model.graph, model.graph.initializers[name], name.removeprefix("model."))
        return PassResult(model, modified=True)

    def _name_weight(self, graph: ir.Graph, node: ir.Node, scope: str) -> None:
        position, suffix = _WEIGHTS[node.op_type]
        weight = node.inputs[position]
        if scope and weight is not None and weight.name in graph.initializers and len(weight.uses()) == 1:
            _rename(graph, weight, f"{scope}.{suffix}")


def _scope(node: ir.Node) -> str:
    """Dotted path of the innermost module, without the stage's own `model.`; empty outside of any."""
    scopes = ast.literal_eval(node.metadata_props.get(SCOPES, "[]"))
    paths = [str(scope) for scope in scopes[:-1] if scope and not str(scope).startswith("_")]
    return max(paths, key=len, default="").removeprefix("model").removeprefix(".")


def _rename(graph: ir.Graph, value: ir.Value, name: str) -> None:
    if name in graph.initializers:
        return
    del graph.initializers[str(value.name)]
    value.name = name
    if value.const_value is not None:
        value.const_value.name = name
    graph.initializers[name] = value


def _unique(name: str, used: Counter[str]) -> str:
    used[name] += 1
    return name if used[name] == 1 else f"{name}.{used[name]}"
