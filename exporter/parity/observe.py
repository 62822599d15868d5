"""A backend that runs each graph and, on the same inputs, the torch stage it was traced from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from exporter.graphs.check import run_stage
from exporter.tolerances import max_abs_error
from runtime.backends import Array, Backend, Graph
from runtime.contract import Forms, GraphIO

if TYPE_CHECKING:
    from torch import nn

    from exporter.stages import GlimmerModel

__all__ = ["ObservingBackend"]


class ObservingBackend:
    """Records, by graph, the largest absolute error against torch over its first runs; the graphs' outputs go on."""

    def __init__(self, backend: Backend, model: GlimmerModel, forms: Forms, max_runs: int) -> None:
        self.name = backend.name
        self.max_abs_err: dict[str, float] = {}
        self._backend, self._model, self._forms, self._max_runs = backend, model, forms, max_runs

    def load(self, path: Path, io: GraphIO) -> Graph:
        """Load a graph under observation; its name is the file's."""
        from exporter.stages import stage_from_model

        stage = stage_from_model(self._model, path.stem, self._forms)
        return _ObservedGraph(path.stem, self._backend.load(path, io), stage, io, self)

    def record(self, name: str, error: float) -> None:
        """Keep the largest error of a graph."""
        self.max_abs_err[name] = max(error, self.max_abs_err.get(name, 0.0))

    @property
    def max_runs(self) -> int:
        """How many runs of each graph are compared."""
        return self._max_runs


class _ObservedGraph:
    def __init__(self, name: str, graph: Graph, stage: nn.Module, io: GraphIO, backend: ObservingBackend) -> None:
        self._name, self._graph, self._stage, self._io, self._backend = name, graph, stage, io, backend
        self._runs = 0

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = self._graph.run(inputs)
        if self._runs < self._backend.max_runs:
            self._runs += 1
            for output, expected in run_stage(self._stage, self._io, inputs).items():
                if np.issubdtype(expected.dtype, np.floating):
                    self._backend.record(self._name, max_abs_error(outputs[output], expected))
        return outputs
