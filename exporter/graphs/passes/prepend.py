"""Set one graph in front of another, such as a store codec's decoder in front of a stage that reads memory."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

__all__ = ["Prepend"]


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
        """Merge; raises KeyError where the graph has no such input."""
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
