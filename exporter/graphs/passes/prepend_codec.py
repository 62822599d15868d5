"""Set a store codec's decode graph in front of a graph that reads decoded memory."""

from __future__ import annotations

import onnx_ir as ir
from onnx_ir.passes import InPlacePass, PassResult

__all__ = ["PrependCodec"]

MEMORY_STATES = "memory_states"


class PrependCodec(InPlacePass):
    """The graph's float32 input `memory` becomes the decoder's output; the decoder's inputs take its place.

    Nodes of the codec are named `codec/...`, so the prefix can be told apart and cut off again.
    """

    def __init__(self, codec: ir.Model) -> None:
        super().__init__()
        self.codec = codec.clone()

    def call(self, model: ir.Model) -> PassResult:
        """Merge; raises ValueError where the graph has no input `memory`."""
        graph, prefix = model.graph, self.codec.graph
        position = next((index for index, value in enumerate(graph.inputs) if value.name == "memory"), None)
        if position is None:
            raise ValueError("the graph has no input named memory")
        decoded = prefix.outputs[0]
        ir.convenience.replace_all_uses_with(graph.inputs[position], decoded)
        nodes = list(prefix)
        codec_inputs = list(prefix.inputs)
        initializers = list(prefix.initializers.values())
        prefix.inputs.clear()
        prefix.outputs.clear()
        prefix.initializers.clear()
        prefix.remove(nodes)
        for node in nodes:
            node.name = f"codec/{node.name}"
            for output in node.outputs:
                output.name = f"codec/{output.name}"
        decoded.name = MEMORY_STATES
        for value in initializers:
            value.name = f"codec/{value.name}"
            if value.const_value is not None:
                value.const_value.name = value.name
            graph.register_initializer(value)
        first = next(iter(graph))
        graph.insert_before(first, nodes)
        graph.inputs[position : position + 1] = codec_inputs
        return PassResult(model, modified=True)
