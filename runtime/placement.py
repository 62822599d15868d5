"""Where a batch's tensors live between the graphs: on the host, or on the device that all of its graphs share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, cast

import numpy as np

from glimmer_export.runtime.backends import (
    Array,
    Device,
    DeviceGraph,
    DeviceLoop,
    DeviceTensor,
    Graph,
    LoopingGraph,
    LoopIO,
    Spec,
    Tensor,
    TypedGraph,
)
from glimmer_export.runtime.passage_memory import BufferPool, PassageMemory, padded_memory
from glimmer_export.runtime.rerank import take_selected

__all__ = ["DevicePlacement", "HostPlacement", "Placement", "placement_of"]

BUCKET = 32
"""Tokens that a length on a device is rounded up to, so that shapes, and with them buffers and CUDA graphs, repeat."""


class Placement(Protocol):
    """Runs graphs by name on tensors of one place."""

    graphs: Mapping[str, Graph]
    eos_interval: int
    max_batches: Mapping[str, int]
    """By graph the most rows of one run, where it has a limit."""

    def run(self, graph: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run a graph on arrays of the host or tensors of this place; what comes is in this place."""
        ...

    def length(self, tokens: int, limit: int) -> int:
        """The length, at most `limit`, that `tokens` tokens are padded to here."""
        ...

    def memory(self, rows: Sequence[Sequence[PassageMemory]], num_tokens: int) -> dict[str, Tensor]:
        """What `padded_memory` lays out."""
        ...

    def constants(self, arrays: Mapping[str, Array]) -> dict[str, Tensor]:
        """Arrays that many runs read, brought here once."""
        ...

    def zeros(self, graph: str, dims: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Tensors of zeros, in the types that a graph takes them in."""
        ...

    def fetch(self, tensor: Tensor) -> Callable[[], Array]:
        """Begin to bring a tensor to the host; what is returned gives it."""
        ...

    def select(self, tensors: Mapping[str, Tensor], selected: Array) -> dict[str, Tensor]:
        """Stage B's inputs of the k passages' tensors (b, k, ...) and of the m selected (b, m) int32."""
        ...


def placement_of(graphs: Mapping[str, Graph]) -> Placement:
    """The device's, where every graph is on the same one; else the host's, whose arrays any graph takes."""
    devices = [graph.device if isinstance(graph, DeviceGraph) else None for graph in graphs.values()]
    shared = devices[0] if devices else None
    if shared is None or any(device is not shared for device in devices):
        return HostPlacement(graphs)
    return DevicePlacement(graphs, shared)


class HostPlacement:
    """Arrays go in and out of every graph, so that nothing need be padded, and what is not selected goes no further."""

    eos_interval = 1
    max_batches: Mapping[str, int] = {}

    def __init__(self, graphs: Mapping[str, Graph]) -> None:
        self.graphs = graphs
        self._buffers = BufferPool()

    def run(self, graph: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run and wait."""
        return cast("dict[str, Tensor]", self.graphs[graph].run(cast("Mapping[str, Array]", inputs)))

    def length(self, tokens: int, limit: int) -> int:
        """No longer than need be."""
        return min(tokens, limit)

    def memory(self, rows: Sequence[Sequence[PassageMemory]], num_tokens: int) -> dict[str, Tensor]:
        """Arrays."""
        return cast("dict[str, Tensor]", padded_memory(rows, num_tokens, self._buffers.take))

    def constants(self, arrays: Mapping[str, Array]) -> dict[str, Tensor]:
        """As they are."""
        return dict(arrays)

    def zeros(self, graph: str, dims: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Arrays; float32 where the graph does not tell, which casts them then."""
        return {name: np.zeros(shape, dtype) for name, (shape, dtype) in _specs(self.graphs[graph], dims).items()}

    def fetch(self, tensor: Tensor) -> Callable[[], Array]:
        """It is there already."""
        return lambda: cast("Array", tensor)

    def select(self, tensors: Mapping[str, Tensor], selected: Array) -> dict[str, Tensor]:
        """Only the selected passages' rows, in the order 0..m-1."""
        taken = take_selected(cast("Mapping[str, Array]", tensors), selected)
        return {**taken, "selected": np.tile(np.arange(selected.shape[1], dtype=np.int32), (len(selected), 1))}


class DevicePlacement:
    """Tensors stay on the device; only scores and tokens come to the host, and only what it alone knows goes there."""

    def __init__(self, graphs: Mapping[str, Graph], device: Device) -> None:
        self.graphs = graphs
        self.eos_interval = device.eos_interval
        limits = {name: cast("DeviceGraph", graph).max_batch for name, graph in graphs.items()}
        self.max_batches: Mapping[str, int] = {name: limit for name, limit in limits.items() if limit is not None}
        self._device = device

    def run(self, graph: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Queue a run."""
        return cast("dict[str, Tensor]", cast("DeviceGraph", self.graphs[graph]).launch(inputs))

    def loop(
        self, graph: str, io: LoopIO, shapes: Mapping[str, tuple[int, ...]], most: int
    ) -> AbstractContextManager[DeviceLoop] | None:
        """At most `most` runs of a graph, each on what the last gave; None where the graphs offer no loops."""
        looping = all(isinstance(graph, LoopingGraph) for graph in self.graphs.values())
        return cast("LoopingGraph", self.graphs[graph]).loop(io, shapes, most) if looping else None

    def run_into(
        self, graph: str, inputs: Mapping[str, Tensor], into: Mapping[str, DeviceTensor]
    ) -> dict[str, Tensor]:
        """Queue a run that writes these outputs to tensors of a loop."""
        return cast("dict[str, Tensor]", cast("LoopingGraph", self.graphs[graph]).launch_into(inputs, into))

    def length(self, tokens: int, limit: int) -> int:
        """Rounded up to a multiple of BUCKET."""
        return min(-(-tokens // BUCKET) * BUCKET, limit)

    def memory(self, rows: Sequence[Sequence[PassageMemory]], num_tokens: int) -> dict[str, Tensor]:
        """Tensors of the device."""
        return cast("dict[str, Tensor]", self._device.memory(rows, num_tokens))

    def constants(self, arrays: Mapping[str, Array]) -> dict[str, Tensor]:
        """Tensors of the device."""
        return cast("dict[str, Tensor]", self._device.constants(arrays))

    def zeros(self, graph: str, dims: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Tensors of the device."""
        return cast("dict[str, Tensor]", self._device.zeros(_specs(self.graphs[graph], dims)))

    def fetch(self, tensor: Tensor) -> Callable[[], Array]:
        """Queue the copy."""
        return cast("DeviceTensor", tensor).fetch()

    def select(self, tensors: Mapping[str, Tensor], selected: Array) -> dict[str, Tensor]:
        """All k passages, and which of them the graph is to gather."""
        return {**tensors, "selected": selected}


def _specs(graph: Graph, dims: Mapping[str, tuple[int, ...]]) -> dict[str, Spec]:
    """Shapes with the types that a graph takes these inputs in."""
    dtypes = graph.dtypes if isinstance(graph, TypedGraph) else {}
    return {name: (shape, dtypes.get(name, np.dtype(np.float32))) for name, shape in dims.items()}
