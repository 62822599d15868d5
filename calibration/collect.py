"""A backend that runs each graph and, on the same inputs without their padding, an instrumented copy of it.

An instrumented graph gives every float tensor as an output. Inputs are cut into runs of one passage or one row, so that
padding enters no range.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from glimmer_export.calibration.histogram import RunningRange
from glimmer_export.calibration.ranges import GraphRanges
from glimmer_export.calibration.spread import spread
from glimmer_export.runtime.backends import Array, Backend, Graph
from glimmer_export.runtime.backends.onnxruntime_library import OrtSession, import_onnxruntime
from glimmer_export.runtime.contract import BundleError, CalibrationError, GraphIO

if TYPE_CHECKING:
    import onnx

__all__ = [
    "CollectingBackend", "GraphCollector", "InstrumentedGraph", "ObservedTensor", "UnpaddedRun", "instrument",
    "unpadded_runs",
]  # fmt: skip

SAME_VALUES = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators whose output holds the values of their first input, in another shape."""


@dataclass(frozen=True)
class ObservedTensor:
    """A float tensor of a graph; dims are numbers, names, or None if nothing is known.

    `values_of` names the tensor whose values it holds in another shape, None if they are its own.
    """

    name: str
    dims: tuple[int | str | None, ...] | None
    is_input: bool
    values_of: str | None

    @property
    def channels(self) -> int | None:
        """Size of the last axis, None if it varies or there is none."""
        last = self.dims[-1] if self.dims else None
        return last if isinstance(last, int) else None


@dataclass(frozen=True)
class InstrumentedGraph:
    """`model` is the serialised graph, whose outputs are the observed tensors that are no inputs."""

    model: bytes
    tensors: tuple[ObservedTensor, ...]


def instrument(path: Path, only: Collection[str] | None = None) -> InstrumentedGraph:
    """Make every float tensor that depends on the inputs of the graph in `path` an output, or those that `only` names.

    What comes of weights and constants alone is left out: it is known without running. External data stays where it
    is. Tensors inside control flow are not seen.
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    types = _types(model)
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    constants = {weight.name for weight in model.graph.initializer} | {""}
    tensors: dict[str, ObservedTensor] = {}
    for value in model.graph.input:
        if value.name not in constants and value.type.tensor_type.elem_type in floats:
            tensors[value.name] = ObservedTensor(value.name, _dims(value), is_input=True, values_of=None)
    for node in model.graph.node:
        if constants.issuperset(node.input):
            constants.update(node.output)
            continue
        source = tensors.get(node.input[0]) if node.op_type in SAME_VALUES else None
        values_of = (source.values_of or source.name) if source is not None else None
        for name in node.output:
            value = types.get(name)
            if value is not None and value.type.tensor_type.elem_type in floats:
                tensors[name] = ObservedTensor(name, _dims(value), is_input=False, values_of=values_of)
    del model.graph.output[:]
    model.graph.output.extend(
        onnx.helper.make_tensor_value_info(tensor.name, types[tensor.name].type.tensor_type.elem_type, None)
        for tensor in tensors.values()
        if not tensor.is_input and (_is_read(tensor) if only is None else tensor.name in only)
    )
    seen = tuple(tensor for tensor in tensors.values() if only is None or tensor.name in only)
    return InstrumentedGraph(model.SerializeToString(), seen)


def _is_read(tensor: ObservedTensor) -> bool:
    """Another shape of known values has nothing of its own but its channels."""
    return tensor.values_of is None or tensor.channels is not None


def _types(model: onnx.ModelProto) -> dict[str, onnx.ValueInfoProto]:
    """Element type and dims of every tensor that nodes write, by name."""
    import onnx

    known = {value.name: value for value in (*model.graph.value_info, *model.graph.output)}
    if any(name and name not in known for node in model.graph.node for name in node.output):
        inferred = onnx.shape_inference.infer_shapes(model).graph
        known = {value.name: value for value in inferred.value_info} | known
    return known


def _dims(value: onnx.ValueInfoProto) -> tuple[int | str | None, ...] | None:
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None for dim in tensor.shape.dim
    )


Places = Mapping[str, NDArray[np.intp]]
"""By the name of a dimension, as the table of graph I/O has it: the indices to keep."""


@dataclass(frozen=True)
class UnpaddedRun:
    """Inputs of one run, and the places of the batch that they were taken from.

    `keep` names, by dimension, the indices that are no padding where it could not be cut off.
    """

    inputs: dict[str, Array]
    places: Places
    keep: Places


def unpadded_runs(
    io: GraphIO, inputs: Mapping[str, Array], limit: int, encoder_attention_mask: Array | None,
    *, fixed_keys: bool = False,
) -> Iterator[UnpaddedRun]:
    """The runs of one batch, at most `limit` of a row's passages among them, spread over their order.

    Positions count from the graph's own offsets, and every passage is encoded by itself, so what remains is computed
    as in the batch. `encoder_attention_mask` (b, s) is that of the decoder's graphs which do not take it themselves.
    With `fixed_keys` the place of a key tells in the decoder's cross-attention (a model's `cross_attention_bias`).
    """
    names = {tensor.name for tensor in io.inputs}
    if "memory_mask" in names:
        runs = _live(inputs, limit, selects="selected" in names)
    elif "step" in names:
        runs = _decoder(inputs, fixed_keys=fixed_keys)
    elif "encoder_hidden_states" in names:
        runs = _rows("encoder_tokens", encoder_attention_mask)
    elif inputs["attention_mask"].ndim == 2:
        runs = _texts(inputs["attention_mask"], limit)
    else:
        runs = _joined(inputs["attention_mask"], limit)
    for places, keep in runs:
        if all(len(kept) for kept in places.values()):
            taken = {tensor.name: _take(inputs[tensor.name], tensor.dims, places) for tensor in io.inputs}
            if "selected" in names:
                taken["selected"] = np.zeros((1, 1), np.int32)
            yield UnpaddedRun(taken, places, keep)


def _take(values: Array, dims: Sequence[int | str], places: Places) -> Array:
    for axis, dim in enumerate(dims):
        if isinstance(dim, str) and dim in places:
            values = values.take(places[dim], axis=axis)
    return values


Runs = Iterator[tuple[dict[str, NDArray[np.intp]], Places]]


def _live(inputs: Mapping[str, Array], limit: int, *, selects: bool) -> Runs:
    masks = inputs["memory_mask"]
    for row, passages in enumerate(masks):
        question_mask = inputs["question_mask"][row] if "question_mask" in inputs else np.zeros(0, np.int32)
        question = np.flatnonzero(question_mask)
        places = {"batch": np.array([row])} | ({"question": question} if len(question_mask) else {})
        candidates = inputs["selected"][row] if selects else range(len(passages))
        present = [int(place) for place in candidates if passages[place].any()]
        for place in spread(present, limit):
            passage = np.flatnonzero(passages[place])
            tokens = np.concatenate([question, len(question_mask) + passage])
            ranked = dict.fromkeys(("passages", "shortlisted"), np.array([place]))
            yield {**places, **ranked, "passage": passage, "tokens": tokens}, {}


def _texts(mask: Array, limit: int) -> Runs:
    for row in spread(range(len(mask)), limit):
        yield {"batch": np.array([row]), "tokens": np.flatnonzero(mask[row])}, {}


def _joined(mask: Array, limit: int) -> Runs:
    """Question and passage in one row: padding between them holds the passage in its place, and is left out after."""
    for row, passages in enumerate(mask):
        present = [place for place in range(len(passages)) if passages[place].any()]
        for place in spread(present, limit):
            kept = np.flatnonzero(passages[place])
            taken = {"batch": np.array([row]), "passages": np.array([place]), "tokens": np.arange(kept[-1] + 1)}
            # One passage a run: its tokens are all that the decoder would read.
            yield taken, {"tokens": kept, "encoder_tokens": kept}


def _decoder(inputs: Mapping[str, Array], *, fixed_keys: bool) -> Runs:
    """Positions of the cache behind the step are empty, and the graph works at any length of it.

    With `fixed_keys` the places of the encoder's first `step` tokens tell: padding among them stays in the run, to hold
    those behind in their places, and is left out after.
    """
    for row, step in enumerate(inputs["step"]):
        positions = np.arange(int(step) + 1)
        mask = inputs["encoder_attention_mask"][row] > 0
        held = np.arange(len(mask)) < (int(step) if fixed_keys and mask.any() else 0)
        kept = np.flatnonzero(mask | held)
        yield {
            "batch": np.array([row]), "prefix": positions, "cache_length": positions, "encoder_tokens": kept,
        }, {} if mask[kept].all() else {"encoder_tokens": np.flatnonzero(mask[kept])}


def _rows(dim: str, mask: Array | None) -> Runs:
    for row, kept in enumerate(() if mask is None else mask):
        yield {"batch": np.array([row]), dim: np.flatnonzero(kept)}, {}


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
        collector = self.collector(path, io)
        if collector is not None:
            self.collectors[path.stem] = collector
        return _CollectedGraph(plain, collector, self)

    def collector(self, path: Path, io: GraphIO) -> GraphCollector | None:
        """What looks at a graph's tensors; None if nothing does."""
        return GraphCollector(path, io, limit=self._limit, threads=self._threads, fixed_keys=self._fixed_keys)

    def close(self) -> None:
        """Close the plain graphs' backend."""
        self._backend.close()


class GraphCollector:
    """The ranges of one graph's tensors, or of those that `only` names, while samples run."""

    def __init__(
        self, path: Path, io: GraphIO, *, limit: int, threads: int | None, fixed_keys: bool,
        only: Collection[str] | None = None,
    ) -> None:
        self.name = path.stem
        self.runs = 0
        self._io, self._limit, self._fixed_keys = io, limit, fixed_keys
        graph = instrument(path, only)
        self._tensors = {tensor.name: tensor for tensor in graph.tensors}
        self._session = _session(graph, path, threads)
        self._outputs = [name for name, _, _ in self._session.outputs]
        self.ranges = {
            tensor.name: RunningRange(tensor.channels, shape_only=tensor.values_of is not None)
            for tensor in graph.tensors
        }

    def observe(self, inputs: Mapping[str, Array], encoder_attention_mask: Array | None = None) -> None:
        """Run on a batch of the graph's inputs, one passage or row at a time and without padding.

        Raises CalibrationError if a tensor is not finite.
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
            self.note(tensor.name, values.astype(np.float32, copy=False))
        except FloatingPointError as reason:
            raise CalibrationError(
                f"graph {self.name}, tensor {tensor.name}", expected="finite values in an FP32 graph",
                found=str(reason), fix="compare the bundle with its checkpoint: `glimmer-export parity`",
            ) from None


    def note(self, name: str, values: Array) -> None:
        """Take up the values of one tensor, padding left out; raises FloatingPointError if one is not finite."""
        self.ranges[name].observe(values)


class _CollectedGraph:
    def __init__(self, plain: Graph, collector: GraphCollector | None, backend: CollectingBackend) -> None:
        self._plain, self._collector, self._backend = plain, collector, backend

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = self._plain.run(inputs)
        if self._collector is not None:
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
