"""Where a batch's tensors live between the graphs: on the host, or on the device that all of its graphs share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import cast

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

__all__ = ["DevicePlacement", "Placement", "placement_of"]

BUCKET = 32
"""Tokens that a length on a device is rounded up to, so that shapes, and with them buffers and CUDA graphs, repeat."""


class Host:
    """The host's memory, as a device: its tensors are arrays, and a look at what a decoder gave costs nothing."""

    eos_interval = 1

    def __init__(self) -> None:
        self._buffers = BufferPool()

    def constants(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """As they are."""
        return arrays

    def zeros(self, specs: Mapping[str, Spec]) -> Mapping[str, Array]:
        """Arrays of zeros."""
        return {name: np.zeros(shape, dtype) for name, (shape, dtype) in specs.items()}

    def memory(self, rows: Sequence[Sequence[PassageMemory]], num_tokens: int) -> Mapping[str, Array]:
        """What `padded_memory` lays out, in buffers that are used again."""
        return padded_memory(rows, num_tokens, self._buffers.take)


class Placement:
    """Runs graphs by name on tensors of one place, which is the host unless a subclass says otherwise.

    Arrays go in and out of every graph here, so that nothing need be padded, and what is not selected goes no further.
    `device` makes tensors in the place; `max_batches` has by graph the most rows of one run, if it has a limit.
    """

    def __init__(self, graphs: Mapping[str, Graph], device: Device | None = None) -> None:
        self.graphs = graphs
        self.device: Device = device or Host()
        self.max_batches: Mapping[str, int] = {}

    def run(self, graph: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Run a graph on arrays of the host or tensors of this place; what comes is in this place."""
        return self.graphs[graph].run(_arrays(inputs))

    def length(self, tokens: int, limit: int) -> int:
        """The length, at most `limit`, that `tokens` tokens are padded to here: no longer than need be."""
        return min(tokens, limit)

    def select(
        self, tensors: Mapping[str, Tensor], selected: Array, read: Array | None = None
    ) -> Mapping[str, Tensor]:
        """Stage B's inputs of the k passages' tensors (b, k, ...) and of the m selected (b, m) int32.

        Only the selected passages' rows, which are then in the order 0..m-1; those that `read` (b, m) bool leaves out
        are masked.
        """
        taken = take_selected(_arrays(tensors), selected, read)
        return {**taken, "selected": np.tile(np.arange(selected.shape[1], dtype=np.int32), (len(selected), 1))}

    def zeros(self, graph: str, dims: Mapping[str, tuple[int, ...]]) -> Mapping[str, Tensor]:
        """Tensors of zeros in the types that a graph takes; float32 if it does not tell, which casts them then."""
        found = self.graphs[graph]
        dtypes = found.dtypes if isinstance(found, TypedGraph) else {}
        specs = {name: (shape, dtypes.get(name, np.dtype(np.float32))) for name, shape in dims.items()}
        return self.device.zeros(specs)

    def fetch(self, tensor: Tensor) -> Callable[[], Array]:
        """Begin to bring a tensor to the host; what is returned gives it."""
        return (lambda: tensor) if isinstance(tensor, np.ndarray) else tensor.fetch()


class DevicePlacement(Placement):
    """Tensors stay on the device; only scores and tokens come to the host, and only what it alone knows goes there."""

    def __init__(self, graphs: Mapping[str, DeviceGraph], device: Device) -> None:
        super().__init__(graphs, device)
        limits = {name: graph.max_batch for name, graph in graphs.items()}
        self.max_batches = {name: limit for name, limit in limits.items() if limit is not None}
        self._graphs = graphs
        looping = {name: graph for name, graph in graphs.items() if isinstance(graph, LoopingGraph)}
        self._looping = looping if len(looping) == len(graphs) else {}

    def run(self, graph: str, inputs: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Queue a run."""
        return self._graphs[graph].launch(inputs)

    def length(self, tokens: int, limit: int) -> int:
        """Rounded up to a multiple of BUCKET."""
        return min(-(-tokens // BUCKET) * BUCKET, limit)

    def select(
        self, tensors: Mapping[str, Tensor], selected: Array, read: Array | None = None
    ) -> Mapping[str, Tensor]:
        """All k passages, and which of them the graph is to gather; what is not read is masked on the host."""
        if read is None or read.all():
            return {**tensors, "selected": selected}
        mask = self.fetch(tensors["memory_mask"])().copy()
        rows, places = np.nonzero(~read)
        mask[rows, selected[rows, places]] = 0
        return {**tensors, "memory_mask": mask, "selected": selected}

    def loop(
        self, graph: str, io: LoopIO, shapes: Mapping[str, tuple[int, ...]], most: int
    ) -> AbstractContextManager[DeviceLoop] | None:
        """At most `most` runs of a graph, each on what the last gave; None if the graphs offer no loops."""
        return self._looping[graph].loop(io, shapes, most) if self._looping else None

    def run_into(
        self, graph: str, inputs: Mapping[str, Tensor], into: Mapping[str, DeviceTensor]
    ) -> Mapping[str, Tensor]:
        """Queue a run that writes these outputs to tensors of a loop."""
        return self._looping[graph].launch_into(inputs, into)


def placement_of(graphs: Mapping[str, Graph]) -> Placement:
    """The device's, if every graph is on the same one; else the host's, whose arrays any graph takes."""
    placed = {name: graph for name, graph in graphs.items() if isinstance(graph, DeviceGraph)}
    devices = {id(graph.device): graph.device for graph in placed.values()}
    if len(placed) < len(graphs) or len(devices) != 1:
        return Placement(graphs)
    return DevicePlacement(placed, *devices.values())


def _arrays(tensors: Mapping[str, Tensor]) -> Mapping[str, Array]:
    """On the host every tensor is an array; to look at each would cost as much as to hand them over."""
    return cast("Mapping[str, Array]", tensors)
