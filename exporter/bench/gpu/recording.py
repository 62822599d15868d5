"""The inputs that graphs get in a session, kept so that each graph can be run alone on them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from glimmer_export.runtime.backends import DeviceGraph, DeviceTensor, Graph, Tensor

__all__ = ["RecordedDeviceGraph", "RecordedGraph", "Recorder"]


class Recorder:
    """By graph, the inputs of its runs, the oldest first, while `on`. Tensors of a device stay there."""

    def __init__(self) -> None:
        self.on = False
        self.inputs: dict[str, list[Mapping[str, Tensor]]] = defaultdict(list)

    def wrap(self, graphs: Mapping[str, Graph]) -> dict[str, Graph]:
        """The same graphs, watched."""
        return {
            name: (RecordedDeviceGraph if isinstance(graph, DeviceGraph) else RecordedGraph)(name, graph, self)
            for name, graph in graphs.items()
        }

    def note(self, name: str, inputs: Mapping[str, Tensor]) -> None:
        """Keep what goes into a graph."""
        if self.on:
            self.inputs[name].append(dict(inputs))


class RecordedGraph:
    """A graph on the host's arrays."""

    def __init__(self, name: str, graph: Any, recorder: Recorder) -> None:
        self.name, self.graph, self._recorder = name, graph, recorder

    @property
    def dtypes(self) -> Any:
        """By input, as the graph takes them."""
        return self.graph.dtypes

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """As the graph, noted."""
        self._recorder.note(self.name, inputs)
        outputs: dict[str, Any] = self.graph.run(inputs)
        return outputs


class RecordedDeviceGraph(RecordedGraph):
    """A graph on a device's tensors."""

    @property
    def device(self) -> Any:
        """The graph's."""
        return self.graph.device

    @property
    def max_batch(self) -> int | None:
        """The graph's."""
        found: int | None = self.graph.max_batch
        return found

    def launch(self, inputs: Mapping[str, Tensor]) -> dict[str, DeviceTensor]:
        """As the graph, noted."""
        self._recorder.note(self.name, inputs)
        outputs: dict[str, DeviceTensor] = self.graph.launch(inputs)
        return outputs
