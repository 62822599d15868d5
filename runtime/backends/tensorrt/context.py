"""An engine's execution contexts: the shapes they are set to, and runs of them on one stream.

Runs that follow each other can be captured together as a CUDA graph, which the GPU is given by one call.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import numpy as np

from glimmer_export.runtime.backends.tensorrt.buffers import Layout
from glimmer_export.runtime.backends.tensorrt.device import CudaDevice
from glimmer_export.runtime.backends.tensorrt.library import LoadedEngine
from glimmer_export.runtime.contract import BackendError, DeviceLostError, GraphIO

__all__ = ["Captures", "Context", "RunSequence", "Shapes"]

Shapes = tuple[tuple[int, ...], ...]


class Context:
    """One execution context with its optimization profile. Not safe from several threads: its device holds a lock."""

    def __init__(self, engine: LoadedEngine, io: GraphIO, profile: int, device: CudaDevice) -> None:
        """Raises BackendError if the GPU's memory does not hold another context."""
        self._subject, self._io, self._device = engine.subject, io, device
        self._names = [tensor.name for tensor in (*io.inputs, *io.outputs)]
        self._context = engine.context(profile, device.stream)
        self._shapes: Shapes | None = None
        self._addresses: tuple[int, ...] = ()
        self._layout = Layout.of({})

    def bind(self, shapes: Shapes) -> Layout:
        """Set the inputs' shapes, in the order of the graph's I/O; what the outputs need."""
        if shapes == self._shapes:
            return self._layout
        self._shapes = None
        for tensor, shape in zip(self._io.inputs, shapes, strict=True):
            if not self._context.set_input_shape(tensor.name, shape):
                raise self._error(f"to take {tensor.name} {list(shape)}")
        outputs = {tensor.name: tuple(self._context.get_tensor_shape(tensor.name)) for tensor in self._io.outputs}
        if any(size < 0 for shape in outputs.values() for size in shape):
            raise self._error(f"outputs of known shape for inputs {shapes}")
        dtypes = {tensor.name: np.dtype(tensor.dtype) for tensor in self._io.outputs}
        self._layout = Layout.of({name: (shape, dtypes[name]) for name, shape in outputs.items()})
        self._shapes = shapes
        return self._layout

    @property
    def capturable(self) -> bool:
        """Whether a run like the last can be captured; TensorRT says nothing of it, TensorRT-RTX does since 1.2."""
        asked = getattr(self._context, "is_stream_capturable", None)
        return asked is None or bool(asked(self._device.stream))

    def queue(self, addresses: tuple[int, ...]) -> None:
        """Queue a run on the device's stream, at the addresses of inputs and outputs, in the order of the graph's I/O.

        Raises BackendError if TensorRT refuses, DeviceLostError if that is because the GPU failed.
        """
        if addresses != self._addresses:
            before = self._addresses or (0,) * len(addresses)
            self._addresses = ()
            for name, address, earlier in zip(self._names, addresses, before, strict=True):
                if address != earlier:
                    self._context.set_tensor_address(name, address)
            self._addresses = addresses
        if not self._context.execute_async_v3(self._device.stream):
            self._device.cuda.check(self._device.stream)
            raise self._error("to be queued")

    def _error(self, expected: str) -> BackendError:
        return BackendError(
            self._subject, expected=expected, found="TensorRT refused, as its log says",
            fix="build the engines again: `glimmer-export build`",
        )


class Captures:
    """Whether one engine's runs are captured; once they cannot be, none is tried any more, and `note` says why."""

    def __init__(self, subject: str, *, wanted: bool) -> None:
        self._subject = subject
        self.on, self.note = wanted, ""

    def give_up(self, reason: str) -> None:
        """Queue runs one by one from now on, and warn of it."""
        self.on = False
        self.note = f"{self._subject} runs without CUDA graphs, which is slower: {reason}"
        warnings.warn(self.note, stacklevel=2)


class RunSequence:
    """Runs at addresses that are theirs for good; the first `count` of them are queued together.

    Each has a context of its own: one whose addresses changed after a capture must not be used by it. Not safe from
    several threads: its device holds a lock.
    """

    def __init__(
        self, device: CudaDevice, contexts: Sequence[Context], addresses: Sequence[tuple[int, ...]],
        captures: Captures, *, prepare: Callable[[], object] = lambda: None,
    ) -> None:
        """`prepare` is called before runs that are queued one by one, where their contexts are not theirs alone."""
        self._device, self._captures, self._prepare = device, captures, prepare
        self._runs = list(zip(contexts, addresses, strict=True))
        self._warm = 0
        self._executables: dict[int, int] = {}

    def queue(self, count: int) -> bool:
        """Queue the first `count` runs: one by one at first, which warms them up, then as a CUDA graph.

        Whether it was by a CUDA graph. Raises BackendError if the engine refuses, DeviceLostError.
        """
        cuda, stream = self._device.cuda, self._device.stream
        if count not in self._executables and self._captures.on and self._warm >= count:
            self._capture(count)
        if (executable := self._executables.get(count)) is not None:
            cuda.launch(executable, stream)
            return True
        self._prepare()
        self._queue_singly(count)
        self._warm = max(self._warm, count)
        return False

    def close(self) -> None:
        """Give the CUDA graphs back; nothing may be queued."""
        while self._executables:
            self._device.cuda.destroy_executable(self._executables.popitem()[1])

    def _queue_singly(self, count: int) -> None:
        for context, addresses in self._runs[:count]:
            context.queue(addresses)

    def _capture(self, count: int) -> None:
        if not all(context.capturable for context, _ in self._runs[:count]):
            self._captures.give_up("it cannot be captured as it was built; build it again: `glimmer-export build`")
            return
        try:
            self._executables[count] = self._device.cuda.capture(
                self._device.stream, lambda: self._queue_singly(count)
            )
        except DeviceLostError:
            raise
        except BackendError as reason:
            self._captures.give_up(str(reason))
