"""The part of a graph in front of its stage: memory selected and decoded from a store's codec, traced on its own."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glimmer_export.exporter.graphs.passes import NameNodes
from glimmer_export.exporter.graphs.trace import graph_from_stage
from glimmer_export.runtime.contract import GraphIO, IOTensor, ModelShape, codec_inputs

if TYPE_CHECKING:
    import onnx_ir as ir
    from torch import nn

__all__ = ["MemoryPrefix", "memory_prefix"]


@dataclass(frozen=True)
class MemoryPrefix:
    """A prefix graph, and what the stage behind it takes: `replaces` are the stage's inputs, one a prefix output."""

    graph: ir.Model
    replaces: tuple[str, ...]
    stage_io: GraphIO


def memory_prefix(stage: nn.Module, io: GraphIO, shape: ModelShape, codec: str) -> MemoryPrefix | None:
    """The prefix of a stage whose graph has this I/O; None where it reads no memory.

    A graph that reads memory and `selected` takes the selected passages first and decodes them alone. A stage that
    applies the codec's scale itself keeps `memory_scale` as an input.
    """
    from glimmer_export.exporter.stages import CodecDecoder, SelectedMemory, applies_scale

    inputs = {tensor.name: tensor for tensor in io.inputs}
    if "memory" not in inputs:
        return None
    selects, scaled = "selected" in inputs, not applies_scale(stage)
    codes = tuple(tensor for tensor in codec_inputs(shape, codec) if scaled or tensor.name != "memory_scale")
    decoder = CodecDecoder(codec, shape.d_model, scaled=scaled)
    passages = "selected" if selects else "passages"
    states = IOTensor("memory_states", "float32", ("batch", passages, "passage", shape.d_model))
    mask = IOTensor("memory_states_mask", "int32", ("batch", passages, "passage"))
    if selects:
        prefix_io = GraphIO((*codes, inputs["memory_mask"], inputs["selected"]), (states, mask))
        graph = graph_from_stage(SelectedMemory(decoder), prefix_io, shape)
    else:
        graph = graph_from_stage(decoder, GraphIO(codes, (states,)), shape)
    NameNodes()(graph)
    gone = {tensor.name for tensor in codes} | ({"selected"} if selects else set())
    stage_inputs = []
    for tensor in io.inputs:
        if tensor.name == "memory":
            stage_inputs.append(dataclasses.replace(states, name="memory"))
        elif tensor.name == "memory_mask":
            stage_inputs.append(dataclasses.replace(mask, name="memory_mask"))
        elif tensor.name not in gone:
            stage_inputs.append(tensor)
    replaces = ("memory", "memory_mask") if selects else ("memory",)
    return MemoryPrefix(graph, replaces, GraphIO(tuple(stage_inputs), io.outputs))
