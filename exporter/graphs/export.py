"""One stage of a model -> one checked graph file."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.graphs.check import check_graph
from exporter.graphs.passes import DeclareIO, NameNodes, Prepend, StripMetadata
from exporter.graphs.prefix import memory_prefix
from exporter.graphs.trace import TracedStages
from exporter.graphs.write import write_graph
from runtime.contract import Forms, GraphIO, codec_of

if TYPE_CHECKING:
    from exporter.stages import GlimmerModel

__all__ = ["ExportedGraph", "export_graph"]


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
    model: GlimmerModel, name: str, io: GraphIO, forms: Forms, directory: Path, traced: TracedStages | None = None
) -> ExportedGraph:
    """Trace, rewrite, write and check one graph; `traced` holds what was traced for the graphs before it.

    Raises ExportError where a check fails.
    """
    from onnx_ir.passes import Sequential

    from exporter.stages import stage_from_model

    started = time.perf_counter()
    shape = model.config.shape
    stage = stage_from_model(model, name, forms)
    prefix = memory_prefix(stage, io, shape, codec_of(name))
    traced = TracedStages() if traced is None else traced
    graph = traced.graph(stage, io if prefix is None else prefix.stage_io, shape)
    prepend = [] if prefix is None else [Prepend(prefix.graph, prefix.replaces)]
    Sequential(NameNodes(), *prepend, DeclareIO(io), StripMetadata())(graph)
    files = write_graph(graph, directory, name)
    parameters = sum(value.const_value.size for value in graph.graph.initializers.values() if value.const_value)
    del graph
    error = check_graph(files[0], stage, io, shape)
    size = sum(file.stat().st_size for file in files)
    return ExportedGraph(name, tuple(files), parameters, size, error, time.perf_counter() - started)
