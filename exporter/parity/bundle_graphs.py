"""A bundle's graphs for memory in any of its codecs, each loaded once and when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from glimmer_export.runtime.backends import Backend, Graph
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.contract import OptionError

__all__ = ["BundleGraphs", "GraphSet", "TorchGraphs"]


class GraphSet(Protocol):
    """Graphs by the stages that they compute, for memory in a codec; None: there is no memory."""

    def of(self, codec: str | None) -> dict[str, Graph]:
        """Raises OptionError where there are none for the codec."""
        ...


class BundleGraphs:
    """Those of a bundle, on a backend; `loaded` are graphs that are there already, for memory in `codec`."""

    def __init__(
        self, bundle: Bundle, backend: Backend, loaded: Mapping[str, Graph] | None = None, codec: str | None = None
    ) -> None:
        self._bundle, self._backend = bundle, backend
        stages = bundle.manifest.stages(codec)
        self._graphs = {stages[stage]: graph for stage, graph in (loaded or {}).items()}

    def of(self, codec: str | None) -> dict[str, Graph]:
        """As GraphSet; raises BundleError or BackendError too, where a graph cannot be loaded."""
        manifest = self._bundle.manifest
        if codec is not None and codec not in manifest.codecs:
            raise OptionError(
                str(self._bundle), expected=f"graphs for the codec {codec} of a store that is compared",
                found=", ".join(manifest.codecs), fix=f"export it with `--codecs {codec}` too",
            )
        return {stage: self.graph(name) for stage, name in manifest.stages(codec).items()}

    def graph(self, name: str) -> Graph:
        """One graph by its own name."""
        if name not in self._graphs:
            self._graphs[name] = self._backend.load(self._bundle.graph_path(name), self._bundle.manifest.io()[name])
        return self._graphs[name]


class TorchGraphs:
    """Those that `make` gives for a codec."""

    def __init__(self, make: Callable[[str | None], dict[str, Graph]]) -> None:
        self._make = make
        self._made: dict[str | None, dict[str, Graph]] = {}

    def of(self, codec: str | None) -> dict[str, Graph]:
        """As GraphSet."""
        if codec not in self._made:
            self._made[codec] = self._make(codec)
        return self._made[codec]
