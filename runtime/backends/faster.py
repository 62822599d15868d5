"""A graph on two backends of the CPU, until its first run has shown which is faster here.

Which that is hangs on the graph, its precision and the CPU, so no table could tell. The first run of a graph is done by
both, on what it is given: once to warm up and then twice, in turn, of which the better counts. What is chosen stays so
for as long as the session lives, and the other is let go with its copy of the weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from time import perf_counter

from glimmer_export.runtime.backends.contract import Array, Graph, TypedGraph
from glimmer_export.runtime.contract import BackendError, DeviceMemoryError

__all__ = ["FasterGraph"]

TIMED = 2
MARGIN = 0.95
"""Of the last one's time: what takes as long to a few hundredths would else be chosen by chance."""


class FasterGraph:
    """One graph, by two backends or more; the last is taken if none is clearly faster. Safe from several threads."""

    def __init__(self, stage: str, graphs: Mapping[str, Graph]) -> None:
        self._stage, self._graphs = stage, dict(graphs)
        self._measuring = Lock()
        self._chosen: Graph | None = None
        self._note = f"{stage}: not yet run, by {' or '.join(graphs)}"
        typed = next((graph for graph in graphs.values() if isinstance(graph, TypedGraph)), None)
        self.dtypes = {} if typed is None else dict(typed.dtypes)

    @property
    def note(self) -> str:
        """Which backend runs the graph, and by what times it was chosen."""
        return self._note

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once, or, the first time, once on each backend to choose by; raises as they do."""
        if self._chosen is None:
            with self._measuring:
                if self._chosen is None:
                    return self._choose(inputs)
        return self._chosen.run(inputs)

    def _choose(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        found: dict[str, dict[str, Array]] = {}
        best: dict[str, float] = {}
        failed: dict[str, BackendError] = {}
        for timed in range(1 + TIMED):
            for name, graph in self._graphs.items():
                if name in failed:
                    continue
                try:
                    began = perf_counter()
                    found[name] = graph.run(inputs)
                    taken = perf_counter() - began
                except DeviceMemoryError:
                    raise
                except BackendError as reason:
                    failed[name] = reason
                    continue
                if timed:
                    best[name] = min(taken, best.get(name, taken))
        if not best:
            raise next(iter(failed.values()))
        last = list(self._graphs)[-1]
        chosen = min(best, key=lambda name: best[name] * (MARGIN if name == last else 1.0))
        times = ", ".join(f"{seconds * 1e3:.2f} ms by {name}" for name, seconds in best.items())
        lost = "".join(f"; not by {name}: {reason}" for name, reason in failed.items())
        self._note = f"{self._stage}: {chosen}; {times}{lost}"
        self._chosen = self._graphs[chosen]
        self._graphs = {chosen: self._chosen}
        return found[chosen]
