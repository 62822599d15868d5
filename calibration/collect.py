"""A backend that runs each graph and, on the same inputs without their padding, an instrumented copy of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from glimmer_export.calibration.histogram import RunningRange
from glimmer_export.calibration.instrument import InstrumentedGraph, ObservedTensor, instrument
from glimmer_export.calibration.ranges import GraphRanges
from glimmer_export.calibration.unpadded import Places, unpadded_runs
from glimmer_export.runtime.backends import Array, Backend, Graph
from glimmer_export.runtime.backends.onnxruntime_library import OrtSession, import_onnxruntime
from glimmer_export.runtime.contract import BundleError, CalibrationError, GraphIO

__all__ = ["CollectingBackend", "GraphCollector"]


class CollectingBackend:
    """Only the plain graph's outputs go on to the next stage; of the copy's nothing but running statistics is kept.

    `plain` are the graphs alone, by the names of their files.

    `limit` bounds the passages of a question that one run of a graph is seen with; `fixed_keys` is `unpadded_runs`'s.
    """

    def __init__(
        self, backend: Backend, *, limit: int, threads: int | None = None, fixed_keys: bool = False
    ) -> None:
        self.name = backend.name
        self.collectors: dict[str, GraphCollector] = {}
        self.plain: dict[str, Graph] = {}
        self.encoder_attention_mask: Array | None = None
        self._backend, self._limit, self._threads, self._fixed_keys = backend, limit, threads, fixed_keys

    def load(self, path: Path, io: GraphIO) -> Graph:
        """Load a graph, and its instrumented copy; its name is the file's."""
        plain = self.plain[path.stem] = self._backend.load(path, io)
        self.collectors[path.stem] = GraphCollector(
            path, io, limit=self._limit, threads=self._threads, fixed_keys=self._fixed_keys
        )
        return _CollectedGraph(plain, self.collectors[path.stem], self)


class GraphCollector:
    """The ranges of one graph's tensors while samples run."""

    def __init__(self, path: Path, io: GraphIO, *, limit: int, threads: int | None, fixed_keys: bool) -> None:
        self.name = path.stem
        self.runs = 0
        self._io, self._limit, self._fixed_keys = io, limit, fixed_keys
        graph = instrument(path)
        self._tensors = {tensor.name: tensor for tensor in graph.tensors}
        self._session = _session(graph, path, threads)
        self._outputs = [name for name, _, _ in self._session.outputs]
        self.ranges = {
            tensor.name: RunningRange(tensor.channels, shape_only=tensor.values_of is not None)
            for tensor in graph.tensors
        }

    def observe(self, inputs: Mapping[str, Array], encoder_attention_mask: Array | None = None) -> None:
        """Run on a batch of the graph's inputs, one passage or row at a time and without padding.

        Raises CalibrationError where a tensor is not finite.
        """
        for run in unpadded_runs(
            self._io, inputs, self._limit, encoder_attention_mask, fixed_keys=self._fixed_keys
        ):
            self.runs += 1
            for name, values in run.inputs.items():
                if name in self.ranges:
                    self._observe(self._tensors[name], values, run.keep)
            outputs = self._session.run(self._outputs, run.inputs)
            for name, values in zip(self._outputs, outputs, strict=True):
                self._observe(self._tensors[name], values, run.keep)

    def result(self) -> GraphRanges:
        """Ranges of the tensors that had values, in the graph's order."""
        own = {name: running.result() for name, running in self.followed() if running.seen}
        return {
            name: replace(own[tensor.values_of or name], channel_amax=self.ranges[name].channel_amax)
            for name, tensor in self._tensors.items() if (tensor.values_of or name) in own
        }

    def followed(self) -> Iterator[tuple[str, RunningRange]]:
        """Tensors with values of their own, by name."""
        for name, tensor in self._tensors.items():
            if tensor.values_of is None:
                yield name, self.ranges[name]

    def unseen(self) -> list[str]:
        """Tensors that never had a value."""
        return [name for name, running in self.followed() if not running.seen]

    def _observe(self, tensor: ObservedTensor, values: Array, keep: Places) -> None:
        if keep and tensor.dims is not None:
            for axis, dim in enumerate(tensor.dims):
                if isinstance(dim, str) and dim in keep:
                    values = values.take(keep[dim], axis=axis)
        try:
            self.ranges[tensor.name].observe(values.astype(np.float32, copy=False))
        except FloatingPointError as reason:
            raise CalibrationError(
                f"graph {self.name}, tensor {tensor.name}", expected="finite values in an FP32 graph",
                found=str(reason), fix="compare the bundle with its checkpoint: `glimmer-export parity`",
            ) from None


class _CollectedGraph:
    def __init__(self, plain: Graph, collector: GraphCollector, backend: CollectingBackend) -> None:
        self._plain, self._collector, self._backend = plain, collector, backend

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = self._plain.run(inputs)
        self._collector.observe(inputs, self._backend.encoder_attention_mask)
        if "encoder_attention_mask" in outputs:
            self._backend.encoder_attention_mask = outputs["encoder_attention_mask"]
        return outputs


def _session(graph: InstrumentedGraph, path: Path, threads: int | None) -> OrtSession:
    def refused(reason: str) -> BundleError:
        return BundleError(
            f"graph {path}", expected="a graph that ONNX Runtime can load, with its tensors looked at", found=reason,
            fix="export the bundle again",
        )

    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    # Runs are short, and those of the plain graph come between: threads that spin for work take it the cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # As lean as the backend of the graphs that answer, whose weights stand in memory once more.
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    # A graph that is given as bytes has no folder of its own.
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(path.parent))
    if threads is not None:
        options.intra_op_num_threads = threads
    return OrtSession(graph.model, options, subject=f"graph {path}", refused=refused, folder=path.parent)
