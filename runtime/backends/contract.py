"""What every backend offers: load one graph, run it; and what graphs on a device of its own offer besides."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.contract import FP32, FormChoice, GraphIO
from glimmer_export.runtime.passage_memory import PassageMemory

__all__ = [
    "Array", "Backend", "BackendKind", "BackendOptions", "CachingDevice", "ChoosingBackend", "Device", "DeviceGraph",
    "DeviceLoop", "DeviceTensor", "Graph", "LoopIO", "LoopingGraph", "NotingBackend", "Spec", "Tensor", "TypedGraph",
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
    """Loads graphs for one kind of device, which it holds until it is closed."""

    name: str

    def load(self, path: Path, io: GraphIO) -> Graph:
        """Load a graph and check its I/O.

        Raises BundleError if the file is damaged or has another I/O, BackendError if there is nothing for this device.
        """
        ...

    def close(self) -> None:
        """Wait for queued work and give back what is held; its graphs and tensors cannot be used any more."""
        ...


@runtime_checkable
class NotingBackend(Protocol):
    """A backend that has something to say of how it runs."""

    def notes(self) -> tuple[str, ...]:
        """What does not run as fast as it might, and why, as far as anything ran; also once it was closed."""
        ...


@runtime_checkable
class ChoosingBackend(Protocol):
    """A backend whose engines were built in one of a bundle's forms of cross-attention."""

    @property
    def form_choice(self) -> FormChoice | None:
        """The choice that they were built by; None if they were built before there was one."""
        ...


@dataclass(frozen=True)
class BackendOptions:
    """What a backend is opened with; each takes of it what concerns it.

    `bundle` is the directory whose graphs will be loaded. `threads` are the CPU threads of one graph run, None for as
    many as suit it. `passage_cache_bytes` of a device's memory keep the passages that were read last. `lean` is for
    runs whose memory counts more than their time. `compute_precision` is what float operators are computed in: `fp32`,
    or `bf16` of a kind that has `check_bf16`. `compile_cache` is a directory that keeps what was compiled.
    """

    bundle: Path
    threads: int | None = None
    passage_cache_bytes: int = 0
    lean: bool = False
    compute_precision: str = FP32
    compile_cache: Path | None = None


@dataclass(frozen=True)
class BackendKind:
    """A backend before it is opened, as it is registered.

    `name` is what `backend=` and `--backend` call it, and what the opened backend says it is. `library` is the Python
    package that it needs. `open` raises BackendError if it cannot work here. `in_auto`: `auto` tries it, unless it is
    `slow_on_cpu_codes` and the graphs were quantised for a CPU. `has_passage_cache`: it takes `passage_cache_bytes`.
    `check` is for a backend that opens only with what was built of a bundle: it starts as far as that goes without one,
    and says with what. `few_bit_weights`: it runs ONNX Runtime's MatMulNBits, of graphs whose weights have few bits.
    and says with what. `check_bf16` raises BackendError where it cannot compute FP32 graphs in BF16; None: never.
    `has_compile_cache`: it takes `compile_cache`. `cpu`: it is one of those for the CPU that `auto` chooses among.
    """

    name: str
    library: str
    open: Callable[[BackendOptions], Backend]
    in_auto: bool = False
    slow_on_cpu_codes: bool = False
    has_passage_cache: bool = False
    check: Callable[[], str] | None = None
    few_bit_weights: bool = False
    check_bf16: Callable[[], None] | None = None
    has_compile_cache: bool = False
    cpu: bool = False


class Device(Protocol):
    """The memory that the graphs of one backend share, so that tensors go from graph to graph without the host."""

    eos_interval: int
    """Decoder steps between two looks at what they gave: each look waits for the device."""

    def constants(self, arrays: Mapping[str, Array]) -> Mapping[str, Tensor]:
        """Copies of the host's arrays, for as long as they are referred to."""
        ...

    def zeros(self, specs: Mapping[str, Spec]) -> Mapping[str, Tensor]:
        """Tensors of zeros."""
        ...

    def memory(self, rows: Sequence[Sequence[PassageMemory]], num_tokens: int) -> Mapping[str, Tensor]:
        """What `padded_memory` lays out, on the device; beside the work that is queued already, if it can be."""
        ...


@runtime_checkable
class CachingDevice(Protocol):
    """A device that may keep the memory of passages that were read."""

    @property
    def passage_cache_counts(self) -> tuple[int, int]:
        """How many passages it had when they were read, and how many it had not."""
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
        """The most rows of one run; None if the graph sets no limit."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """As Graph."""
        ...

    def launch(self, inputs: Mapping[str, Tensor]) -> Mapping[str, DeviceTensor]:
        """Queue one run and return at once. Inputs may be arrays of the host, or tensors of this graph's device.

        Raises DeviceMemoryError if the device's memory does not hold it, DeviceLostError where the device failed,
        and BackendError for shapes that the graph was not built for.
        """
        ...


@dataclass(frozen=True)
class LoopIO:
    """What the runs of a loop hand to each other, by the names of a graph's inputs and outputs.

    `carried` names for an input the output of the run before that it is; `counter` is the input (batch,) int32 that is
    one more in every run. The other inputs stay as they are. `collected` are the outputs that every run is asked for,
    `seen` those that the first run of all and the last of those queued together are asked for; of both, what the graph
    has.
    """

    carried: Mapping[str, str]
    counter: str
    collected: tuple[str, ...]
    seen: tuple[str, ...]


class DeviceLoop(Protocol):
    """Runs of one graph, each on what the last gave, in memory that is the loop's until it is closed.

    Not safe from several threads; loops of different threads are.
    """

    interval: int
    """The most runs that are queued together."""

    @property
    def inputs(self) -> Mapping[str, DeviceTensor]:
        """Where the first run reads, by input, but for the counter."""
        ...

    def start(self, counter: Array, given: Mapping[str, Tensor], zeros: Iterable[str]) -> None:
        """Set the first run's counter (batch,) int32, copy what is given to its inputs, and clear these others."""
        ...

    def run(self, count: int, *, seen: bool) -> Callable[[], list[dict[str, Array]]]:
        """Queue the next `count` runs, at most `interval`; what is returned waits for them and gives their outputs.

        By run those that are collected, and where `seen` asks for it the others; the arrays hold until the next call.
        The last queued must be waited for before more are. Raises as `launch`.
        """
        ...


@runtime_checkable
class LoopingGraph(Protocol):
    """A graph on a device that offers loops beside single runs."""

    def launch_into(
        self, inputs: Mapping[str, Tensor], into: Mapping[str, DeviceTensor]
    ) -> Mapping[str, DeviceTensor]:
        """As DeviceGraph.launch, with tensors that these outputs are written to, such as inputs of a loop."""
        ...

    def loop(
        self, io: LoopIO, shapes: Mapping[str, tuple[int, ...]], most: int
    ) -> AbstractContextManager[DeviceLoop] | None:
        """A loop of at most `most` runs, with the dimensions of every input; None if single runs are wanted.

        Raises as `launch`.
        """
        ...
