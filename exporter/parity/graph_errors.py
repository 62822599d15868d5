"""Error by graph: both sides' graphs on the reference's real inputs, run and compared by Polygraphy."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from glimmer_export.calibration.spread import spread
from glimmer_export.exporter.parity.inputs import MemorySource, Row, Rows, StoredMemory, codec_name
from glimmer_export.exporter.parity.options import ParityOptions
from glimmer_export.exporter.parity.sides import GraphSide
from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import Array, Graph
from glimmer_export.runtime.contract import MEMORY_ENCODER, STAGES, Forms, GraphIO, graph_io
from glimmer_export.runtime.passage_memory import encode_passages

__all__ = ["LEAST_SNR_DB", "GraphError", "ObservedGraph", "observe"]

LEAST_SNR_DB = -300.0
"""Stands for no signal at all: an output that is not finite, or an error if the reference is all 0."""


@dataclass(frozen=True)
class GraphError:
    """A graph's error over the observed runs: of its float outputs, the worst by each measure.

    `max_abs_err` and `mean_abs_err` are in the output's own unit, infinite if the candidate's is not finite.
    `snr_db` is 10 log10(sum of squares of the reference / of the error), infinite if there is no error at all;
    `cosine` that of the angle between reference and candidate, from -1 to 1.
    """

    max_abs_err: float
    mean_abs_err: float
    snr_db: float
    cosine: float


@dataclass
class _OutputError:
    """Sums over the runs of one output."""

    max_abs_err: float = 0.0
    abs_err: float = 0.0
    count: int = 0
    reference: float = 0.0
    candidate: float = 0.0
    product: float = 0.0
    error: float = 0.0

    def add(self, reference: Array, candidate: Array, max_abs_err: float, mean_abs_err: float) -> None:
        """One run: the arrays, and Polygraphy's figures of them."""
        first, second = (values.astype(np.float64).ravel() for values in (reference, candidate))
        self.max_abs_err = max(self.max_abs_err, _finite(max_abs_err))
        self.abs_err += _finite(mean_abs_err) * first.size
        self.count += first.size
        with np.errstate(invalid="ignore", over="ignore"):
            self.reference += float(first @ first)
            self.candidate += float(second @ second)
            self.product += float(first @ second)
            self.error += float((first - second) @ (first - second))

    def summary(self) -> GraphError:
        """The figures of this output alone."""
        mean = self.abs_err / max(self.count, 1)
        return GraphError(self.max_abs_err, mean, self._snr_db(), self._cosine())

    def _snr_db(self) -> float:
        if self.error == 0:
            return math.inf
        if not math.isfinite(self.error) or self.reference == 0:
            return LEAST_SNR_DB
        return max(10 * math.log10(self.reference / self.error), LEAST_SNR_DB)

    def _cosine(self) -> float:
        if self.error == 0:
            return 1.0
        length = math.sqrt(self.reference) * math.sqrt(self.candidate) if math.isfinite(self.candidate) else 0.0
        return min(self.product / length, 1.0) if length else 0.0


@dataclass
class ObservedGraph:
    """The reference's graph, whose first runs the candidate's graph repeats on the same inputs.

    `io` has the types that inputs are given in: of what may be FP16 between graphs FP32, which each casts to its own.
    """

    name: str
    reference: Graph
    candidate: Graph
    io: GraphIO
    max_runs: int
    _runs: int = 0
    _outputs: dict[str, _OutputError] = field(default_factory=dict)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """The reference's outputs, whatever the candidate gives."""
        if self._runs < self.max_runs:
            self._runs += 1
            given = {tensor.name: inputs[tensor.name].astype(tensor.dtype, copy=False) for tensor in self.io.inputs}
            self._compare(given)
        return self.reference.run(inputs)

    @property
    def complete(self) -> bool:
        """Whether as many runs were observed as were asked for."""
        return self._runs >= self.max_runs

    @property
    def error(self) -> GraphError | None:
        """What was seen; None before the first run."""
        found = [output.summary() for output in self._outputs.values()]
        if not found:
            return None
        return GraphError(
            max(item.max_abs_err for item in found), max(item.mean_abs_err for item in found),
            min(item.snr_db for item in found), min(item.cosine for item in found),
        )

    def _compare(self, inputs: Mapping[str, Array]) -> None:
        from polygraphy.comparator import Comparator, SimpleCompareFunc
        from polygraphy.logger import G_LOGGER

        from glimmer_export.exporter.parity.runner import GraphRunner

        runners = [
            GraphRunner(graph, self.io, f"{self.name}, {side}")
            for graph, side in ((self.reference, "reference"), (self.candidate, "candidate"))
        ]
        with G_LOGGER.verbosity(G_LOGGER.CRITICAL), np.errstate(all="ignore"):
            results = Comparator.run(runners, data_loader=[dict(inputs)])
            simple = SimpleCompareFunc(check_error_stat="max", atol=math.inf, rtol=math.inf)
            (compared,) = Comparator.compare_accuracy(results, compare_func=simple)[0].values()
        reference, candidate = (iterations[0] for _, iterations in results)
        for name, figures in compared[0].items():
            output = self._outputs.setdefault(name, _OutputError())
            output.add(reference[name], candidate[name], figures.max_absdiff, figures.mean_absdiff)


def _finite(error: float) -> float:
    return error if math.isfinite(error) else math.inf




def observe(
    session: Session,
    candidate: Mapping[str, Graph],
    reference: Mapping[str, Graph],
    forms: Forms,
    rows: Rows,
    source: MemorySource,
    store: StoredMemory | None,
    *,
    options: ParityOptions,
    advance: Callable[[int], None],
) -> tuple[dict[str, GraphError], float | None]:
    """Error by graph, and the largest between the store's memory and what the reference's encoder gives.

    `session` is the candidate's, and so are the graphs `candidate`; `source` is the memory that the reference's graphs
    read, in whose codec both are, and `forms` are theirs. A graph of another form is no counterpart and is left out.
    The memory error is None without a store that has the passages.
    """
    manifest = session.bundle.manifest
    io = graph_io(manifest.model, manifest.forms)  # what is FP16 between the graphs of a side is compared in FP32
    stages = manifest.stages(codec_name(source.codec))
    observed = {
        stage: ObservedGraph(stage, reference[stage], candidate[stage], io[name], options.observed_runs)
        for stage, name in stages.items()
        if stage in reference and _comparable(stage, manifest.forms, forms)
    }
    graphs = {**reference, **observed}
    taken = [row for row in rows.rows if row.candidates]
    size = max(1, min(options.batch_size, len(taken) // max(options.observed_runs, 1)))
    num_selected = options.top_m or manifest.model.num_selected
    side = GraphSide(graphs, manifest.model, session.text, source, num_selected)
    memory_error: float | None = None
    sample = spread(taken, size * options.observed_runs)
    num_runs = min(len(sample), options.observed_runs)
    for turn in range(num_runs):
        # Each batch reaches from the first question to the last: of the decoder, which runs often, only some are seen.
        batch = sample[turn::num_runs]
        if manifest.model.traits.has_memory:
            row = batch[turn % len(batch)]
            memory_error = _worse(memory_error, _memory_error(graphs[MEMORY_ENCODER], rows, row, store))
        side.answer(batch)
        advance(len(batch))
    return {name: graph.error for name, graph in observed.items() if graph.error is not None}, memory_error


def _comparable(name: str, candidate: Forms, reference: Forms) -> bool:
    """Whether a graph computes the same in both forms: stage A's form decides if the layers are cut."""
    form = STAGES[name].form
    return form is None or getattr(candidate, form) == getattr(reference, form)


def _memory_error(encoder: Graph, rows: Rows, row: Row, store: StoredMemory | None) -> float | None:
    """The encoder runs in any case: for `memory_fid`, nothing else runs it."""
    exact = encode_passages(encoder, [rows.table.input_ids(number) for number in row.numbers])
    errors = []
    if store is not None:
        for number, states in zip(row.numbers, exact, strict=True):
            if (found := store.stored(number)) is not None and store.codec is not None:
                errors.append(float(np.abs(store.codec.decode(found.tensors) - states).max()))
    return max(errors, default=None)


def _worse(first: float | None, second: float | None) -> float | None:
    return second if first is None else first if second is None else max(first, second)
