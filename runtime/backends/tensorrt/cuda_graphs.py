"""Runs of an engine that follow each other, captured together as a CUDA graph, which the GPU is given by one call."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

from glimmer_export.runtime.backends.tensorrt.context import Context
from glimmer_export.runtime.backends.tensorrt.device import CudaDevice
from glimmer_export.runtime.contract import BackendError, DeviceLostError

__all__ = ["Captures", "RunSequence"]


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

        Whether it was by a CUDA graph. Raises BackendError where the engine refuses, DeviceLostError.
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
