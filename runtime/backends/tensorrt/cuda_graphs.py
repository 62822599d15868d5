"""Runs of an engine captured as CUDA graphs, which the GPU is given by one call."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from runtime.backends.tensorrt.context import Context
from runtime.backends.tensorrt.device import CudaDevice
from runtime.contract import BackendError, DeviceLostError

__all__ = ["CudaGraphs", "RunKey"]

RunKey = tuple[tuple[tuple[int, ...], ...], tuple[int, ...]]
"""Shapes of the inputs, and addresses of inputs and outputs: what a captured run is bound to."""


@dataclass(frozen=True)
class _Captured:
    """A run that can be launched. Its context is its own: changing one that was captured is undefined."""

    context: Context
    executable: int


class CudaGraphs:
    """Captures what comes a second time; `limit` runs are remembered, those not seen for longest go."""

    def __init__(self, device: CudaDevice, new_context: Callable[[], Context], limit: int) -> None:
        self._device, self._new_context, self._limit = device, new_context, limit
        self._runs: OrderedDict[RunKey, _Captured | None] = OrderedDict()

    def run(self, key: RunKey, plainly: Callable[[], None]) -> None:
        """Queue a run: by its CUDA graph, or where there is none yet `plainly`."""
        known = key in self._runs
        captured = self._runs.setdefault(key, None)
        self._runs.move_to_end(key)
        if captured is not None:
            self._device.cuda.launch(captured.executable, self._device.stream)
        elif not known or not self._limit:
            plainly()
            self._forget()
        else:
            self._runs[key] = self._capture(key, plainly)

    def close(self) -> None:
        """Give every CUDA graph back; nothing may be queued."""
        for captured in self._runs.values():
            if captured is not None:
                self._device.cuda.destroy_executable(captured.executable)
        self._runs.clear()

    def _capture(self, key: RunKey, plainly: Callable[[], None]) -> _Captured | None:
        """Run once more, which warms the context up, then capture the same; None where that cannot be."""
        shapes, addresses = key
        try:
            context = self._new_context()
            context.bind(shapes)
        except DeviceLostError:
            raise
        except BackendError as reason:
            plainly()
            self._give_up(reason)
            return None
        context.queue(addresses)
        try:
            executable = self._device.cuda.capture(self._device.stream, lambda: context.queue(addresses))
        except DeviceLostError:
            raise
        except BackendError as reason:
            self._give_up(reason)
            return None
        return _Captured(context, executable)

    def _give_up(self, reason: BackendError) -> None:
        self._limit = 0
        warnings.warn(f"no CUDA graph of the decoder step, which is slower without: {reason}", stacklevel=2)

    def _forget(self) -> None:
        """Keep to the limit; what is forgotten may be running still."""
        while len(self._runs) > self._limit:
            _, captured = self._runs.popitem(last=False)
            if captured is not None:
                self._device.synchronize()
                self._device.cuda.destroy_executable(captured.executable)
