"""An execution context of an engine: the shapes it is set to, and runs of it on one stream."""

from __future__ import annotations

import numpy as np

from glimmer_export.runtime.backends.tensorrt.device import CudaDevice
from glimmer_export.runtime.backends.tensorrt.layout import Layout
from glimmer_export.runtime.backends.tensorrt.library import LoadedEngine
from glimmer_export.runtime.contract import BackendError, GraphIO

__all__ = ["Context", "Shapes"]

Shapes = tuple[tuple[int, ...], ...]


class Context:
    """One execution context with its optimization profile. Not safe from several threads: its device holds a lock."""

    def __init__(self, engine: LoadedEngine, io: GraphIO, profile: int, device: CudaDevice) -> None:
        """Raises BackendError where the GPU's memory does not hold another context."""
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

        Raises BackendError where TensorRT refuses, DeviceLostError where that is because the GPU failed.
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
