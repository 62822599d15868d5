"""Calls of the CUDA runtime, and nothing else: the only module that knows cuda-python.

Addresses and handles are plain integers, sizes are bytes, and an error of CUDA's is an exception that names it. The GPU
is the first that CUDA shows; the environment variable CUDA_VISIBLE_DEVICES makes another the first.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.backends.cuda_libraries import INSTALL_GPU
from glimmer_export.runtime.contract import BackendError, DeviceLostError, DeviceMemoryError

__all__ = ["CaptureError", "Cuda", "Gpu", "PinnedMemory"]

NON_BLOCKING = 1
"""cudaStreamNonBlocking: the legacy default stream waits for nothing of ours, nor we for it."""
DISABLE_TIMING = 2
MAPPED = 2
LOST = frozenset({
    "cudaErrorAssert", "cudaErrorContained", "cudaErrorCudartUnloading", "cudaErrorDeviceUninitialized",
    "cudaErrorECCUncorrectable", "cudaErrorExternalDevice", "cudaErrorHardwareStackError", "cudaErrorIllegalAddress",
    "cudaErrorIllegalInstruction", "cudaErrorInvalidAddressSpace", "cudaErrorInvalidPc", "cudaErrorLaunchFailure",
    "cudaErrorLaunchTimeout", "cudaErrorMisalignedAddress", "cudaErrorMpsRpcFailure", "cudaErrorNvlinkUncorrectable",
    "cudaErrorTensorMemoryLeak", "cudaErrorUnknown",
})  # fmt: skip
"""Errors after which every call of the process fails, by CUDA's documentation of cudaError_t."""


class CaptureError(BackendError):
    """Work that cannot be captured in a CUDA graph; it can be queued all the same."""


@dataclass(frozen=True)
class Gpu:
    """What engines are bound to, and whether host and GPU share one memory, as on a Jetson."""

    name: str
    compute_capability: str
    integrated: bool


@dataclass(frozen=True, eq=False)
class PinnedMemory:
    """Page-locked memory of the host: `host` is a view (bytes,) uint8, `address` where the GPU finds it."""

    host: NDArray[np.uint8]
    host_address: int
    address: int


class Cuda:
    """The CUDA runtime on one GPU. Safe from several threads.

    Every method raises DeviceLostError if the GPU failed, at this call or before, and BackendError for any other
    error; those that allocate raise DeviceMemoryError. Work is queued on streams; only `synchronize_event` and
    `synchronize` wait for it.
    """

    def __init__(self) -> None:
        self.lost: str | None = None
        self._capturing: int | None = None
        self._runtime = _import_runtime()
        self._success = self._runtime.cudaError_t.cudaSuccess
        self._default = self._runtime.cudaMemcpyKind.cudaMemcpyDefault
        self._thread_local = self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        if not self._call("cudaGetDeviceCount"):
            raise _no_gpu("none")
        properties = self._call("cudaGetDeviceProperties", 0)
        name = properties.name.decode() if isinstance(properties.name, bytes) else properties.name
        self.gpu = Gpu(name, f"{properties.major}.{properties.minor}", bool(properties.integrated))

    def memory_info(self) -> tuple[int, int]:
        """Free and total bytes of the GPU's memory."""
        free, total = self._call("cudaMemGetInfo")
        return int(free), int(total)

    def malloc(self, num_bytes: int) -> int:
        """Address of new memory of the GPU."""
        return int(self._call("cudaMalloc", num_bytes, asked=num_bytes))

    def free(self, address: int) -> None:
        """Give memory back that no queued work uses."""
        self._call("cudaFree", address)

    def host_alloc(self, num_bytes: int) -> PinnedMemory:
        """New page-locked memory of the host, mapped into the GPU's addresses."""
        host_address = int(self._call("cudaHostAlloc", num_bytes, MAPPED, asked=num_bytes))
        address = int(self._call("cudaHostGetDevicePointer", host_address, 0))
        view = np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(host_address))
        return PinnedMemory(view, host_address, address)

    def host_free(self, memory: PinnedMemory) -> None:
        """Give page-locked memory back that no queued work uses; its view must not be used any more."""
        self._call("cudaFreeHost", memory.host_address)

    def copy(self, target: int, source: int, num_bytes: int, stream: int) -> None:
        """Queue a copy between any two of the GPU's and page-locked memory."""
        self._call("cudaMemcpyAsync", target, source, num_bytes, self._default, stream)

    def clear(self, address: int, num_bytes: int, stream: int) -> None:
        """Queue the writing of zeros."""
        self._call("cudaMemsetAsync", address, 0, num_bytes, stream)

    def stream(self) -> int:
        """A new stream that does not wait for the default one."""
        return int(self._call("cudaStreamCreateWithFlags", NON_BLOCKING))

    def destroy_stream(self, stream: int) -> None:
        """Give a stream back."""
        self._call("cudaStreamDestroy", stream)

    def synchronize(self, stream: int) -> None:
        """Wait for all that is queued on a stream."""
        self._call("cudaStreamSynchronize", stream)

    def event(self) -> int:
        """A new event, which counts as reached until it is recorded."""
        return int(self._call("cudaEventCreateWithFlags", DISABLE_TIMING))

    def destroy_event(self, event: int) -> None:
        """Give an event back."""
        self._call("cudaEventDestroy", event)

    def record(self, event: int, stream: int) -> None:
        """Have the event be reached when what is queued on the stream so far is done."""
        self._call("cudaEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        """Have what is queued on the stream from now on wait for the event, as it was last recorded."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def synchronize_event(self, event: int) -> None:
        """Wait on the host for an event."""
        self._call("cudaEventSynchronize", event)

    def reached(self, event: int) -> bool:
        """Whether an event is reached; does not wait."""
        return self._call("cudaEventQuery", event, allowed="cudaErrorNotReady") is not NOT_READY

    def capture(self, stream: int, queue: Callable[[], None]) -> int:
        """An executable CUDA graph of what `queue` queues on the stream, none of which runs.

        Raises CaptureError if some of it cannot be captured, and what `queue` raises.
        """
        self._call("cudaStreamBeginCapture", stream, self._thread_local)
        self._capturing = stream
        try:
            queue()
        except BaseException:
            # The stream must leave its capture even if that fails too.
            error, graph = self._runtime.cudaStreamEndCapture(stream)
            if error == self._success:
                self._runtime.cudaGraphDestroy(graph)
            self._capturing = None
            self._clear()
            self.check(stream)
            raise
        finally:
            self._capturing = None
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return int(self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, executable: int, stream: int) -> None:
        """Queue a captured graph."""
        self._call("cudaGraphLaunch", executable, stream)

    def destroy_executable(self, executable: int) -> None:
        """Give a captured graph back that is not queued."""
        self._call("cudaGraphExecDestroy", executable)

    def check(self, stream: int) -> None:
        """Raise DeviceLostError if work that ran meanwhile, on this stream or another, broke the GPU; does not wait.

        The stream is asked: what cuda-bindings remembers as the last error is that of its own calls, and a kernel of
        TensorRT's that crashes is none of these. A stream that is being captured cannot be asked; `capture` does it
        afterwards.
        """
        if stream != self._capturing:
            self._call("cudaStreamQuery", stream, allowed="cudaErrorNotReady")

    def _call(self, function: str, *arguments: Any, asked: int | None = None, allowed: str = "") -> Any:
        if self.lost is not None:
            raise self._lost_error()
        try:
            error, *values = getattr(self._runtime, function)(*arguments)
        except RuntimeError as reason:  # cuda-python before 12.9, where it finds no driver
            raise self._not_called(function, reason) from None
        if error == self._success:
            return values[0] if len(values) == 1 else tuple(values)
        self._clear()
        if error.name == allowed:
            return NOT_READY
        raise self._error(function, error, asked)

    def _clear(self) -> None:
        """Forget the last error, which CUDA keeps until it is asked for: somebody else would take it for theirs."""
        self._runtime.cudaGetLastError()

    def _not_called(self, function: str, reason: RuntimeError) -> BackendError:
        if not hasattr(self, "gpu"):
            return _no_gpu(str(reason))
        return BackendError(
            f"CUDA, {function}", expected="a driver that has it", found=str(reason), fix="install a newer driver"
        )

    def _error(self, function: str, error: Any, asked: int | None) -> BackendError:
        subject = f"CUDA, {function}"
        if error.name in LOST:
            self.lost = error.name
            return self._lost_error()
        if error.name == "cudaErrorMemoryAllocation" and function == "cudaHostAlloc":
            return DeviceMemoryError(
                subject, expected=f"{asked:,} bytes of page-locked memory of the host", found="less",
                fix="make room in the host's memory, raise the limit on locked memory, or ask fewer questions at once",
            )
        if error.name == "cudaErrorMemoryAllocation" and asked is not None:
            free, total = self.memory_info()
            return DeviceMemoryError(
                f"{subject} on {self.gpu.name}", expected=f"{asked:,} bytes",
                found=f"{free:,} bytes free of {total:,}",
                fix="ask fewer questions at once, lower top_k or passage_cache_bytes, or end what else uses the GPU",
            )
        if "Capture" in error.name:
            return CaptureError(subject, expected="work that can be captured", found=error.name, fix="queue it plainly")
        if not hasattr(self, "gpu"):
            return _no_gpu(error.name)
        return BackendError(subject, expected="success", found=error.name, fix="look it up in CUDA's cudaError_t")

    def _lost_error(self) -> DeviceLostError:
        return DeviceLostError(
            f"GPU {self.gpu.name}" if hasattr(self, "gpu") else "GPU", expected="a GPU that runs", found=f"{self.lost}",
            fix="end this process and start another; if it happens again, look at `nvidia-smi` and the kernel's log",
        )


class _NotReady:
    """What a query gives that is not over."""


NOT_READY = _NotReady()


def _import_runtime() -> Any:
    """cuda-python's bindings of the CUDA runtime, at their place of today or at that of its earlier versions."""
    try:
        try:
            from cuda.bindings import runtime
        except ImportError:
            from cuda import cudart as runtime
    except ImportError:
        raise BackendError(
            "CUDA", expected="the package cuda-python", found="none", fix=f"install it: {INSTALL_GPU}",
        ) from None
    except RuntimeError as reason:
        raise _no_gpu(str(reason)) from None
    return runtime


def _no_gpu(found: str) -> BackendError:
    return BackendError(
        "CUDA", expected="an NVIDIA GPU and its driver", found=found,
        fix="install the driver, or choose another backend",
    )
