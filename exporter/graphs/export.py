"""One stage of a model -> one checked graph file."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from glimmer_export.exporter.graphs.blank_weights import BlankWeights
from glimmer_export.exporter.graphs.check import APART_BYTES, StageCheck
from glimmer_export.exporter.graphs.rewrites import DeclareIO, NameNodes, Prepend, StripMetadata
from glimmer_export.exporter.graphs.trace import TracedStages, memory_prefix
from glimmer_export.exporter.graphs.write import WeightsFile, WrittenGraph, write_graph
from glimmer_export.runtime.contract import Forms, GraphIO, codec_of, stage_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from glimmer_export.exporter.checkpoint import Checkpoint

__all__ = ["ExportedGraph", "GraphExporter"]


@dataclass(frozen=True)
class ExportedGraph:
    """A written graph: its file and weights, its parameters, and seconds it took.

    `max_abs_err` is the largest error against torch, None if the graph was not checked.
    """

    name: str
    written: WrittenGraph
    num_parameters: int
    max_abs_err: float | None
    seconds: float


class GraphExporter:
    """Exports the graphs of one checkpoint, one after the other, beside the file of their weights.

    Weights stand in memory one at a time while a graph is made; if it is checked, those of its stage in FP32.
    """

    def __init__(
        self, checkpoint: Checkpoint, forms: Forms, weights: WeightsFile, *, precision: str = "fp32", check: bool = True
    ) -> None:
        self._checkpoint, self._forms, self._weights = checkpoint, forms, weights
        self._precision, self._check = precision, check
        self._blank = BlankWeights(checkpoint.tensors)
        self._model = self._blank.model(checkpoint.config)
        self._traced = TracedStages()

    def export(self, name: str, io: GraphIO, on_check: Callable[[], None] = lambda: None) -> ExportedGraph:
        """Trace, rewrite, write and check one graph; `on_check` is called before the check.

        Raises ExportError if a check fails, CalibrationError for a weight that is too large for FP16.
        """
        from onnx_ir.passes import Sequential

        from glimmer_export.calibration.passes.merge_products import DECODERS, MergeProducts
        from glimmer_export.exporter.stages import stage_from_model

        started = time.perf_counter()
        shape = self._checkpoint.config.shape
        stage = stage_from_model(self._model, name, self._forms)
        prefix = memory_prefix(stage, io, shape, codec_of(name))
        graph = self._traced.graph(stage, io if prefix is None else prefix.stage_io, shape)
        prepend = [] if prefix is None else [Prepend(prefix.graph, prefix.replaces)]
        Sequential(NameNodes(), *prepend, DeclareIO(io), StripMetadata())(graph)
        filled = self._filled(graph)
        parameters = sum(value.const_value.size for value in graph.graph.initializers.values() if value.const_value)
        if stage_of(name) in DECODERS:
            MergeProducts()(graph)
        written = write_graph(graph, name, self._weights)
        del graph
        error = None
        if self._check:
            on_check()
            check = StageCheck(self._checkpoint.directory, written.path, self._forms, filled, self._precision)
            error = check.run_apart() if 4 * parameters > APART_BYTES else check.run()
        return ExportedGraph(name, written, parameters, error, time.perf_counter() - started)

    def _filled(self, graph: ir.Model) -> frozenset[str]:
        """Give a traced graph its weights and its precision; returns the weights' names in the checkpoint."""
        if self._precision == "fp32":
            return self._blank.fill(graph)
        from glimmer_export.calibration.passes.convert_fp16 import ConvertFp16
        from glimmer_export.calibration.passes.fold_weights import FoldWeights

        FoldWeights()(graph)
        filled = self._blank.fill(graph)
        ConvertFp16()(graph)
        return filled
