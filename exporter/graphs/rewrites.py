"""Rewrites of a traced graph: its declared I/O, its names, the codec in front of it, and no trace of the machine."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Sequence

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult
from onnx_ir.passes.common import ClearMetadataAndDocStringPass

from glimmer_export.runtime.contract import GraphIO

__all__ = ["DeclareIO", "NameNodes", "Prepend", "StripMetadata"]


class DeclareIO(InPlacePass):
    """The tracer derives names such as `selected*(passage + question)`; a reader is better served by the contract's.

    Inputs are put into the contract's order too.
    """

    def __init__(self, io: GraphIO) -> None:
        super().__init__()
        self.io = io

    def call(self, model: ir.Model) -> PassResult:
        """Set the shapes; raises ValueError if names or dtypes are not the contract's."""
        order = {tensor.name: place for place, tensor in enumerate(self.io.inputs)}
        inputs = sorted(model.graph.inputs, key=lambda value: order.get(str(value.name), len(order)))
        model.graph.inputs.clear()
        model.graph.inputs.extend(inputs)
        for values, tensors in ((model.graph.inputs, self.io.inputs), (model.graph.outputs, self.io.outputs)):
            found = [(value.name, str(value.dtype)) for value in values]
            expected = [(tensor.name, _ONNX_DTYPES[tensor.dtype]) for tensor in tensors]
            if found != expected:
                raise ValueError(f"graph I/O {found}, expected {expected}")
            for value, tensor in zip(values, tensors, strict=True):
                value.shape = ir.Shape(tensor.dims)
        return PassResult(model, modified=True)


_ONNX_DTYPES = {"float32": "FLOAT", "float16": "FLOAT16", "int8": "INT8", "int32": "INT32", "uint8": "UINT8"}

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


class Prepend(InPlacePass):
    """Inputs `replaces` of a graph become the outputs of the prefix graph, whose own inputs take their place.

    An input that both graphs have stays one. Nodes and values of the prefix are named `codec/...`, so that it can be
    told apart and cut off again; the values between keep the names of the prefix's outputs.
    """

    def __init__(self, prefix: ir.Model, replaces: Sequence[str]) -> None:
        super().__init__()
        self.prefix = prefix
        self.replaces = tuple(replaces)

    def call(self, model: ir.Model) -> PassResult:
        """Merge; raises KeyError if the graph has no such input."""
        graph, prefix = model.graph, self.prefix.clone().graph
        boundary = [str(value.name) for value in prefix.outputs]
        inputs = {str(value.name): value for value in graph.inputs}
        for name, output in zip(self.replaces, prefix.outputs, strict=True):
            ir.convenience.replace_all_uses_with(inputs.pop(name), output)
        for value in prefix.inputs:
            shared = inputs.setdefault(str(value.name), value)
            if shared is not value:
                ir.convenience.replace_all_uses_with(value, shared)
        nodes, outputs = list(prefix), list(prefix.outputs)
        initializers = list(prefix.initializers.values())
        for part in (prefix.inputs, prefix.outputs, prefix.initializers):
            part.clear()
        prefix.remove(nodes)
        for node in nodes:
            node.name = f"codec/{node.name}"
            for value in node.outputs:
                value.name = f"codec/{value.name}"
        for name, value in zip(boundary, outputs, strict=True):
            value.name = name
        for value in initializers:
            value.name = f"codec/{value.name}"
            if value.const_value is not None:
                value.const_value.name = value.name
            graph.register_initializer(value)
        graph.insert_before(next(iter(graph)), nodes)
        graph.inputs[:] = list(inputs.values())
        return PassResult(model, modified=True)


class StripMetadata(InPlacePass):
    """Equal graphs then have equal bytes, wherever they were exported."""

    def call(self, model: ir.Model) -> PassResult:
        """Clear metadata and doc strings of the model, its graph, nodes and values."""
        ClearMetadataAndDocStringPass()(model)
        model.graph.metadata_props.clear()
        model.metadata_props.clear()
        # The pass above clears nodes alone; inputs, weights and what nodes write have notes of their own.
        for value in (*model.graph.inputs, *model.graph.initializers.values(), *_outputs(model.graph)):
            value.metadata_props.clear()
            value.doc_string = None
        model.producer_name, model.producer_version = "glimmer-export", None
        model.doc_string = None
        return PassResult(model, modified=True)


def _outputs(graph: ir.Graph) -> Iterator[ir.Value]:
    return (value for node in graph for value in node.outputs)
