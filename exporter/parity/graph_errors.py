"""Error by graph: both sides' graphs on the reference's real inputs, run and compared by Polygraphy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from glimmer_export.runtime.backends import Array, Graph
from glimmer_export.runtime.contract import GraphIO

__all__ = ["LEAST_SNR_DB", "GraphError", "ObservedGraph"]

LEAST_SNR_DB = -300.0
"""Stands for no signal at all: an output that is not finite, or an error where the reference is all 0."""


@dataclass(frozen=True)
class GraphError:
    """A graph's error over the observed runs: of its float outputs, the worst by each measure.

    `max_abs_err` and `mean_abs_err` are in the output's own unit, infinite where the candidate's is not finite.
    `snr_db` is 10 log10(sum of squares of the reference / of the error), infinite where there is no error at all;
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
