"""One stage of a model -> one checked graph file."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.graphs.check import check_graph
from exporter.graphs.passes import DeclareIO, NameNodes, PrependCodec, StripMetadata
from exporter.graphs.trace import graph_from_stage
from exporter.graphs.write import write_graph
from runtime.contract import GraphIO, IOTensor, codec_inputs

if TYPE_CHECKING:
    import onnx_ir as ir

    from exporter.stages import GlimmerModel

__all__ = ["ExportedGraph", "codec_graph", "export_graph"]


@dataclass(frozen=True)
class ExportedGraph:
    """A written graph: its files (the model first), size, largest error against torch, and seconds it took."""

    name: str
    files: tuple[Path, ...]
    num_parameters: int
    num_bytes: int
    max_abs_err: float
    seconds: float


def export_graph(
    model: GlimmerModel, name: str, io: GraphIO, directory: Path, *, codec: ir.Model | None = None
) -> ExportedGraph:
    """Trace, rewrite, write and check one graph.

    `codec` is the decode graph to set in front where the graph reads memory. Raises ExportError where a check fails.
    """
    from onnx_ir.passes import Sequential

    from exporter.stages import stage_from_model

    started = time.perf_counter()
    shape = model.config.shape
    stage = stage_from_model(model, name)
    passes = [NameNodes(), DeclareIO(io), StripMetadata()]
    if codec is not None:
        passes.insert(1, PrependCodec(codec))
    graph = graph_from_stage(stage, _decoded(io) if codec is not None else io, shape)
    Sequential(*passes)(graph)
    files = write_graph(graph, directory, name)
    parameters = sum(value.const_value.size for value in graph.graph.initializers.values() if value.const_value)
    del graph
    error = check_graph(files[0], stage, io, shape)
    size = sum(file.stat().st_size for file in files)
    return ExportedGraph(name, tuple(files), parameters, size, error, time.perf_counter() - started)


def codec_graph(model: GlimmerModel, codec: str) -> ir.Model:
    """The decode graph of a store codec: the codec's tensors in, float32 memory out."""
    from exporter.stages import Fp16Decoder

    inputs = codec_inputs(model.config.shape, codec)
    memory_states = IOTensor("memory_states", "float32", inputs[0].dims)
    graph = graph_from_stage(Fp16Decoder(), GraphIO(inputs, (memory_states,)), model.config.shape)
    NameNodes()(graph)
    return graph


def _decoded(io: GraphIO) -> GraphIO:
    """The same I/O with memory as the stage takes it: decoded, float32."""
    inputs = (
        dataclasses.replace(tensor, dtype="float32") if tensor.name == "memory" else tensor
        for tensor in io.inputs
        if tensor.name != "memory_scale"
    )
    return GraphIO(tuple(inputs), io.outputs)
