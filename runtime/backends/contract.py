"""What every backend offers: load one graph, run it; and what a backend with a device of its own offers besides."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from runtime.contract import GraphIO
from runtime.passage_memory import PassageMemory

__all__ = [
    "Array", "Backend", "Device", "DeviceBackend", "DeviceGraph", "DeviceTensor", "Graph", "Spec", "Tensor",
    "TypedGraph",
]  # fmt: skip

Array = NDArray[Any]

Spec = tuple[tuple[int, ...], np.dtype[Any]]
"""Dimensions and dtype of a tensor."""


class DeviceTensor(Protocol):
    """A tensor in a device's memory. Work that is queued may still have to write it; what reads it waits by itself.

    Its memory is the device's again when nothing refers to the tensor any more; queued work that reads it is safe.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Dimensions."""
        ...

    @property
    def dtype(self) -> np.dtype[Any]:
        """Numpy's dtype of its elements."""
        ...

    @property
    def address(self) -> int:
        """Where it begins, as the device counts."""
        ...

    def fetch(self) -> Callable[[], Array]:
        """Queue a copy to the host; what is returned waits for it and gives it."""
        ...


Tensor = Array | DeviceTensor


class Graph(Protocol):
    """A loaded graph. Safe from several threads."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; inputs and outputs by their names in the bundle's contract. Inputs it does not have are ignored."""
        ...


@runtime_checkable
class TypedGraph(Protocol):
    """A graph that tells the types of its inputs, as every one that a backend loads does."""

    @property
    def dtypes(self) -> Mapping[str, np.dtype[Any]]:
        """Numpy's dtype of each input, by name."""
        ...


class Backend(Protocol):
    """Loads graphs for one kind of device."""

    name: str

    def load(self, path: Path, io: GraphIO) -> Graph:
        """Load a graph and check its I/O; raises BundleError where the file is damaged or has another I/O."""
        ...


class Device(Protocol):
    """The memory that the graphs of one backend share, so that tensors go from graph to graph without the host."""

    eos_interval: int
    """Decoder steps between two looks at what they gave: each look waits for the device."""

    def constants(self, arrays: Mapping[str, Array]) -> dict[str, DeviceTensor]:
        """Copies of the host's arrays, for as long as they are referred to."""
        ...

    def zeros(self, specs: Mapping[str, Spec]) -> dict[str, DeviceTensor]:
        """Tensors of zeros."""
        ...

    def memory(self, rows: Sequence[Sequence[PassageMemory]], num_tokens: int) -> dict[str, DeviceTensor]:
        """What `padded_memory` lays out, on the device; beside the work that is queued already, where it can be."""
        ...


@runtime_checkable
class DeviceGraph(Protocol):
    """A graph on a device; `run` goes from host to host, as for any graph."""

    @property
    def device(self) -> Device:
        """Where its inputs and outputs are."""
        ...

    @property
    def max_batch(self) -> int | None:
        """The most rows of one run; None where the graph sets no limit."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """As Graph."""
        ...

    def launch(self, inputs: Mapping[str, Tensor]) -> dict[str, DeviceTensor]:
        """Queue one run and return at once. Inputs may be arrays of the host, or tensors of this graph's device.

        Raises DeviceMemoryError where the device's memory does not hold it, DeviceLostError where the device failed,
        and BackendError for shapes that the graph was not built for.
        """
        ...


class DeviceBackend(Protocol):
    """A backend with a device, which it holds until it is closed."""

    name: str

    def load(self, path: Path, io: GraphIO) -> DeviceGraph:
        """As Backend; raises BackendError where there is nothing for this device."""
        ...

    def close(self) -> None:
        """Wait for queued work and give the device back; its graphs and tensors cannot be used any more."""
        ...
