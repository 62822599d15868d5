"""FakeCuda stands in for the module `cuda.bindings.runtime`, where there is no GPU; what it fails on, a GPU forgives.

Memory of the GPU is memory of the host behind addresses that mean nothing and never come again. Work on a stream is
queued, and runs as late as it may, or in any order that streams and events permit (`order`). What CUDA leaves undefined
raises a CudaMisuseError, and stays in `faults`: use after free, a double free, freeing what queued work uses, work that
touches memory which unordered work of another stream writes, the host writing page-locked memory that a queued copy
reads, memory touched out of its bounds, and calls that may not be made during a capture. Memory that nobody wrote holds
NaN, as does a copy's target on the host until the copy is waited for.
"""

# ruff: noqa: N802, N815  (the names are CUDA's)

from __future__ import annotations

import ctypes
import random
import sys
import threading
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import count as counting
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

__all__ = ["Access", "CudaMisuseError", "FakeCuda"]

UNWRITTEN = 0xFF
GAP = 1 << 12
DIRECTIONS = {(True, False): "in", (False, True): "out", (False, False): "inside", (True, True): "outside"}
Access = tuple[int, int]
"""Address and bytes."""

cudaError_t = IntEnum("cudaError_t", {  # noqa: N816
    "cudaSuccess": 0, "cudaErrorMemoryAllocation": 2, "cudaErrorInsufficientDriver": 35, "cudaErrorNoDevice": 100,
    "cudaErrorNotReady": 600, "cudaErrorIllegalAddress": 700, "cudaErrorStreamCaptureUnsupported": 900,
    "cudaErrorInvalidValue": 1,
})  # fmt: skip


class CudaMisuseError(AssertionError):
    """What CUDA leaves undefined."""


@dataclass(eq=False)
class Operation:
    """Queued work; `clock` is how far into each stream it knows everything to be done before it."""

    stream: int
    index: int
    name: str
    run: Callable[[], None]
    after: list[Operation]
    clock: dict[int, int]
    done: bool = False


@dataclass(eq=False)
class Memory:
    """An allocation, and the accesses to it that the host does not know to be over."""

    address: int
    content: Any
    keep: Any = None
    freed: bool = False
    accesses: list[tuple[Operation, int, int, bool]] = field(default_factory=list)

    @property
    def pinned(self) -> bool:
        return self.keep is not None


@dataclass(eq=False)
class Stream:
    clock: dict[int, int] = field(default_factory=dict)
    tail: list[Operation] = field(default_factory=list)
    capture: list[tuple[Any, ...]] | None = None
    capturing_thread: int = 0


@dataclass(eq=False)
class Event:
    clock: dict[int, int] = field(default_factory=dict)
    tail: list[Operation] = field(default_factory=list)


@dataclass(eq=False)
class Executable:
    nodes: list[tuple[Any, ...]]
    launched: list[Operation] = field(default_factory=list)


class FakeCuda:
    """A CUDA runtime. `order` None runs work when it must; a number is the seed of running it whenever it may."""

    cudaError_t = cudaError_t
    cudaMemcpyKind = IntEnum("cudaMemcpyKind", {"cudaMemcpyDefault": 4})
    cudaStreamCaptureMode = IntEnum("cudaStreamCaptureMode", {"cudaStreamCaptureModeThreadLocal": 1})

    def __init__(
        self, *, name: str = "Fake T4", capability: tuple[int, int] = (7, 5), integrated: bool = False,
        total_bytes: int = 1 << 30, order: int | None = None, count: int = 1,
    ) -> None:
        self.properties = SimpleNamespace(
            name=name.encode(), major=capability[0], minor=capability[1], integrated=int(integrated)
        )
        self.total_bytes, self.count = total_bytes, count
        self.faults: list[CudaMisuseError] = []
        self.calls: Counter[str] = Counter()
        self.copied: Counter[str] = Counter()
        """Bytes by direction: `in`, `out`, `inside`, and `outside` from page-locked memory to page-locked memory."""
        self.kernels: list[str] = []
        """Names of what ran on a stream, in the order in which it ran."""
        self.lost: cudaError_t | None = None
        self.crashed: cudaError_t | None = None
        """What a kernel of a library did, of which only what asks the GPU is told."""
        self.driver = True
        """Whether there is one; without it cuda-python 12.6 raises."""
        self.last_error = cudaError_t.cudaSuccess
        """What cuda-python remembers of its own calls, until it is asked for it."""
        self._calls_left: int | None = None
        self._random = None if order is None else random.Random(order)
        self._scripted: list[tuple[str, int, cudaError_t]] = []
        self._next = 1 << 44
        self._addresses: list[int] = []
        self._memories: dict[int, Memory] = {}
        self._handles: dict[int, Any] = {}
        self._waiting: list[Operation] = []
        self._numbers = counting(1)
        self._known: dict[int, int] = {}
        self._lock = threading.RLock()

    # What tests ask for.

    def install(self, monkeypatch, *, earlier: bool = False) -> FakeCuda:
        """Be what `from cuda.bindings import runtime` gives, or `from cuda import cudart`."""
        package, bindings = ModuleType("cuda"), ModuleType("cuda.bindings")
        package.__path__ = bindings.__path__ = []
        package.cudart = bindings.runtime = self
        monkeypatch.setitem(sys.modules, "cuda", package)
        monkeypatch.setitem(sys.modules, "cuda.bindings", None if earlier else bindings)
        return self

    def fail(self, function: str, error: str, *, after: int = 0) -> None:
        """Have a call of a function return an error, once, `after` so many of its calls that do not."""
        self._scripted.append((function, self.calls[function] + after, cudaError_t[error]))

    def mend(self) -> None:
        """Have no call fail any more that was to."""
        self._scripted.clear()

    def lose(self, *, after: int = 0) -> None:
        """Have every call fail from now on, or `after` so many more."""
        self._calls_left = after

    @property
    def live_bytes(self) -> int:
        """Of the GPU's memory."""
        return sum(len(memory.content) for memory in self._memories.values() if not memory.freed and not memory.pinned)

    def check_clean(self) -> None:
        """Raise where anything went wrong, even where nobody saw it, or anything was not given back."""
        if self.faults:
            raise self.faults[0]
        if self.last_error:
            raise self._fault(f"{self.last_error.name} is left for whoever asks for the last error")
        leaked = [f"memory {memory.address:#x}" for memory in self._memories.values() if not memory.freed]
        leaked += [f"{type(value).__name__} {handle}" for handle, value in self._handles.items()]
        if leaked:
            raise self._fault(f"not given back: {', '.join(leaked)}")

    def enqueue(
        self, stream: int, name: str, reads: Sequence[Access], writes: Sequence[Access], run: Callable[[], None],
        check: Callable[[], None] = lambda: None,
    ) -> None:
        """Queue work of a library, which touches this memory; `check` is called when it is queued, also as captured."""
        with self._lock:
            if stream == 0:
                raise self._fault(f"{name} on the default stream")
            target = self._get(stream, Stream)
            if target.capture is None:
                self._queue(stream, name, reads, writes, run, check)
            elif target.capturing_thread != threading.get_ident():
                raise self._fault(f"{name} of another thread while a stream is captured")
            else:
                target.capture.append((name, reads, writes, run, check))
            self._run_some()

    def capturing(self, stream: int) -> bool:
        return self._get(stream, Stream).capture is not None

    def bytes_at(self, address: int, num_bytes: int) -> np.ndarray:
        """Memory that running work may read or write."""
        memory, start = self._find(address, num_bytes)
        return memory.content[start : start + num_bytes]

    # The CUDA runtime.

    def cudaGetDeviceCount(self):
        return self._answer("cudaGetDeviceCount", self.count)

    def cudaGetDeviceProperties(self, device):
        return self._answer("cudaGetDeviceProperties", self.properties)

    def cudaMemGetInfo(self):
        return self._answer("cudaMemGetInfo", self.total_bytes - self.live_bytes, self.total_bytes)

    def cudaPeekAtLastError(self):
        return (self.last_error,)

    def cudaGetLastError(self):
        error, self.last_error = self.last_error, cudaError_t.cudaSuccess
        return (error,)

    def cudaMalloc(self, num_bytes):
        with self._lock:
            if (answer := self._answer("cudaMalloc", waits=True))[0]:
                return answer
            if num_bytes > self.total_bytes - self.live_bytes:
                return self._failed(cudaError_t.cudaErrorMemoryAllocation, None)
            return (cudaError_t.cudaSuccess, self._allocate(num_bytes).address)

    def cudaFree(self, address):
        return self._free("cudaFree", address, pinned=False)

    def cudaHostAlloc(self, num_bytes, flags):
        with self._lock:
            if (answer := self._answer("cudaHostAlloc", waits=True))[0]:
                return answer
            memory = self._allocate(num_bytes, (ctypes.c_uint8 * num_bytes)())
            return (cudaError_t.cudaSuccess, ctypes.addressof(memory.keep))

    def cudaHostGetDevicePointer(self, host_address, flags):
        return self._answer("cudaHostGetDevicePointer", self._pinned(host_address).address)

    def cudaFreeHost(self, host_address):
        return self._free("cudaFreeHost", self._pinned(host_address).address, pinned=True)

    def cudaMemcpyAsync(self, target, source, num_bytes, kind, stream):
        with self._lock:
            if (answer := self._answer("cudaMemcpyAsync"))[0]:
                return answer
            sides = (self._find(source, num_bytes)[0].pinned, self._find(target, num_bytes)[0].pinned)
            self.copied[DIRECTIONS[sides]] += num_bytes

            def run() -> None:
                self.bytes_at(target, num_bytes)[:] = self.bytes_at(source, num_bytes)

            self.enqueue(stream, "copy", [(source, num_bytes)], [(target, num_bytes)], run)
            return answer

    def cudaMemsetAsync(self, address, value, num_bytes, stream):
        with self._lock:
            if (answer := self._answer("cudaMemsetAsync"))[0]:
                return answer
            self.enqueue(
                stream, "clear", [], [(address, num_bytes)], lambda: self.bytes_at(address, num_bytes).fill(value)
            )
            return answer

    def cudaStreamCreateWithFlags(self, flags):
        return self._create("cudaStreamCreateWithFlags", Stream)

    def cudaStreamDestroy(self, stream):
        return self._destroy("cudaStreamDestroy", stream, Stream)

    def cudaStreamSynchronize(self, stream):
        return self._synchronize("cudaStreamSynchronize", self._get(stream, Stream))

    def cudaStreamWaitEvent(self, stream, event, flags):
        with self._lock:
            waiting, awaited = self._get(stream, Stream), self._get(event, Event)
            if not (answer := self._answer("cudaStreamWaitEvent"))[0]:
                _merge(waiting.clock, awaited.clock)
                waiting.tail = [*waiting.tail, *awaited.tail]
            return answer

    def cudaEventCreateWithFlags(self, flags):
        return self._create("cudaEventCreateWithFlags", Event)

    def cudaEventDestroy(self, event):
        return self._destroy("cudaEventDestroy", event, Event)

    def cudaEventRecord(self, event, stream):
        with self._lock:
            source, target = self._get(stream, Stream), self._get(event, Event)
            if not (answer := self._answer("cudaEventRecord"))[0]:
                target.clock, target.tail = dict(source.clock), list(source.tail)
            return answer

    def cudaEventSynchronize(self, event):
        return self._synchronize("cudaEventSynchronize", self._get(event, Event))

    def cudaEventQuery(self, event):
        with self._lock:
            if (answer := self._answer("cudaEventQuery", waits=True))[0]:
                return answer
            queried = self._get(event, Event)
            if not all(operation.done for operation in queried.tail):
                return self._failed(cudaError_t.cudaErrorNotReady)
            _merge(self._known, queried.clock)
            return answer

    def cudaStreamQuery(self, stream):
        with self._lock:
            if (answer := self._answer("cudaStreamQuery", waits=True))[0]:
                return answer
            queried = self._get(stream, Stream)
            if self.crashed is not None:
                self.lost = self.crashed
                return self._failed(self.crashed)
            if not all(operation.done for operation in queried.tail):
                return self._failed(cudaError_t.cudaErrorNotReady)
            _merge(self._known, queried.clock)
            return answer

    def cudaStreamBeginCapture(self, stream, mode):
        with self._lock:
            captured = self._get(stream, Stream)
            if not (answer := self._answer("cudaStreamBeginCapture"))[0]:
                captured.capture, captured.capturing_thread = [], threading.get_ident()
            return answer

    def cudaStreamEndCapture(self, stream):
        with self._lock:
            captured = self._get(stream, Stream)
            nodes, captured.capture = captured.capture, None
            if (answer := self._answer("cudaStreamEndCapture"))[0]:
                return (*answer, None)
            return (*answer, self._handle(tuple(nodes)))

    def cudaGraphInstantiate(self, graph, flags):
        with self._lock:
            if (answer := self._answer("cudaGraphInstantiate"))[0]:
                return answer
            return (*answer, self._handle(Executable(list(self._get(graph, tuple)))))

    def cudaGraphDestroy(self, graph):
        return self._destroy("cudaGraphDestroy", graph, tuple)

    def cudaGraphLaunch(self, executable, stream):
        with self._lock:
            if (answer := self._answer("cudaGraphLaunch"))[0]:
                return answer
            launched = self._get(executable, Executable)
            for node in launched.nodes:
                launched.launched.append(self._queue(stream, *node))
            self._run_some()
            return answer

    def cudaGraphExecDestroy(self, executable):
        with self._lock:
            for operation in self._get(executable, Executable).launched:
                if not self._is_known(operation):
                    raise self._fault("a CUDA graph is destroyed while it is queued")
            return self._destroy("cudaGraphExecDestroy", executable, Executable)

    # How it works.

    def _fault(self, message: str) -> CudaMisuseError:
        self.faults.append(CudaMisuseError(message))
        return self.faults[-1]

    def _failed(self, error: cudaError_t, *values: Any) -> tuple[Any, ...]:
        self.last_error = error
        return (error, *values)

    def _answer(self, function: str, *values: Any, waits: bool = False) -> tuple[Any, ...]:
        if not self.driver:
            raise RuntimeError("Failed to dlopen libcuda.so.1")
        with self._lock:
            if waits and any(
                isinstance(value, Stream) and value.capture is not None
                and value.capturing_thread == threading.get_ident() for value in self._handles.values()
            ):  # fmt: skip
                raise self._fault(f"{function} during a capture")
            if self._calls_left is not None:
                self._calls_left -= 1
                if self._calls_left < 0:
                    self.lost = cudaError_t.cudaErrorIllegalAddress
            number = self.calls[function]
            self.calls[function] += 1
            if self.lost is not None:
                return self._failed(self.lost, *[None] * len(values))
            for scripted in self._scripted:
                if scripted[:2] == (function, number):
                    return self._failed(scripted[2], *[None] * len(values))
            return (cudaError_t.cudaSuccess, *values)

    def _allocate(self, num_bytes: int, keep: Any = None) -> Memory:
        content = np.empty(num_bytes, np.uint8) if keep is None else np.ctypeslib.as_array(keep)
        content.fill(UNWRITTEN)
        memory = Memory(self._next, content, keep)
        self._next += -(-num_bytes // GAP) * GAP + GAP
        self._addresses.append(memory.address)
        self._memories[memory.address] = memory
        return memory

    def _pinned(self, host_address: int) -> Memory:
        for memory in self._memories.values():
            if memory.pinned and ctypes.addressof(memory.keep) == host_address:
                return memory
        raise self._fault(f"{host_address:#x} is no page-locked memory")

    def _find(self, address: int, num_bytes: int) -> tuple[Memory, int]:
        place = bisect_right(self._addresses, address) - 1
        memory = self._memories[self._addresses[place]] if place >= 0 else None
        if memory is None or address + num_bytes > memory.address + len(memory.content):
            raise self._fault(f"{num_bytes} bytes at {address:#x} are not all of one allocation")
        if memory.freed:
            raise self._fault(f"use after free of {address:#x}")
        return memory, address - memory.address

    def _free(self, function: str, address: int, *, pinned: bool) -> tuple[Any, ...]:
        with self._lock:
            if (answer := self._answer(function, waits=True))[0]:
                return answer
            memory = self._memories.get(address)
            if memory is None or memory.pinned != pinned:
                raise self._fault(f"{function} of what it did not give: {address:#x}")
            if memory.freed:
                raise self._fault(f"double free of {address:#x}")
            for operation, *_ in memory.accesses:
                if not self._is_known(operation):
                    raise self._fault(f"{address:#x} is freed while queued {operation.name} uses it")
            memory.freed = True
            memory.content.fill(UNWRITTEN)
            return answer

    def _handle(self, value: Any) -> int:
        handle = next(self._numbers)
        self._handles[handle] = value
        return handle

    def _get(self, handle: int, kind: type) -> Any:
        value = self._handles.get(handle)
        if not isinstance(value, kind):
            raise self._fault(f"{handle} is no {kind.__name__}")
        return value

    def _create(self, function: str, kind: type) -> tuple[Any, ...]:
        with self._lock:
            answer = self._answer(function)
            return answer if answer[0] else (*answer, self._handle(kind()))

    def _destroy(self, function: str, handle: int, kind: type) -> tuple[Any, ...]:
        with self._lock:
            self._get(handle, kind)
            if not (answer := self._answer(function))[0]:
                del self._handles[handle]
            return answer

    def _synchronize(self, function: str, target: Stream | Event) -> tuple[Any, ...]:
        with self._lock:
            if (answer := self._answer(function, waits=True))[0]:
                return answer
            for operation in target.tail:
                self._finish(operation)
            _merge(self._known, target.clock)
            return answer

    def _is_known(self, operation: Operation) -> bool:
        return self._known.get(operation.stream, 0) >= operation.index

    def _queue(
        self, stream: int, name: str, reads: Sequence[Access], writes: Sequence[Access], run: Callable[[], None],
        check: Callable[[], None],
    ) -> Operation:
        check()
        target = self._get(stream, Stream)
        _merge(target.clock, self._known)
        index = target.clock.get(stream, 0) + 1
        target.clock[stream] = index
        operation = Operation(stream, index, name, self._comparing(reads, run), target.tail, dict(target.clock))
        for accesses, writing in ((reads, False), (writes, True)):
            for address, num_bytes in accesses:
                self._access(operation, address, num_bytes, writing)
        for address, num_bytes in writes:
            memory, start = self._find(address, num_bytes)
            reading = [
                earlier for earlier, begin, end, wrote in memory.accesses
                if not wrote and begin < start + num_bytes and start < end and not earlier.done
            ]
            # What queued work is to read stays until then.
            if memory.pinned and not [earlier for earlier in reading if earlier is not operation]:
                memory.content[start : start + num_bytes] = UNWRITTEN
        target.tail = [operation]
        self._waiting.append(operation)
        return operation

    def _access(self, operation: Operation, address: int, num_bytes: int, writing: bool) -> None:
        memory, start = self._find(address, num_bytes)
        memory.accesses = [access for access in memory.accesses if not self._is_known(access[0])]
        for earlier, begin, end, wrote in memory.accesses:
            overlaps = begin < start + num_bytes and start < end
            ordered = operation.clock.get(earlier.stream, 0) >= earlier.index
            if earlier is not operation and overlaps and (writing or wrote) and not ordered:
                raise self._fault(
                    f"missing wait: {operation.name} of stream {operation.stream} touches {address:#x}, which queued "
                    f"{earlier.name} of stream {earlier.stream} {'writes' if wrote else 'reads'}"
                )
        memory.accesses.append((operation, start, start + num_bytes, writing))

    def _comparing(self, reads: Sequence[Access], run: Callable[[], None]) -> Callable[[], None]:
        """Work that first compares the page-locked memory which it reads with what that held when it was queued."""
        held = []
        for address, num_bytes in reads:
            memory, _ = self._find(address, num_bytes)
            if memory.pinned and all(operation.done or not wrote for operation, _, _, wrote in memory.accesses):
                held.append((address, self.bytes_at(address, num_bytes).copy()))

        def compared() -> None:
            for address, content in held:
                if not np.array_equal(self.bytes_at(address, len(content)), content):
                    raise self._fault(f"the host wrote {address:#x} while queued work was to read it")
            run()

        return compared

    def _finish(self, operation: Operation) -> None:
        """Run an operation and all that must run before it."""
        stack = [operation]
        while stack:
            last = stack[-1]
            before = [earlier for earlier in last.after if not earlier.done]
            if before:
                stack.extend(before)
                continue
            stack.pop()
            if not last.done:
                last.done = True
                self.kernels.append(last.name)
                last.run()
                # What is over holds on to nothing: neither to what ran before, nor to whose work it was.
                last.after, last.run = [], _nothing
        self._waiting = [waiting for waiting in self._waiting if not waiting.done]

    def _run_some(self) -> None:
        while self._random is not None and self._waiting and self._random.random() < 0.5:
            self._finish(self._random.choice(self._waiting))


def _nothing() -> None:
    """What work that is over does."""


def _merge(clock: dict[int, int], other: dict[int, int]) -> None:
    for stream, index in other.items():
        clock[stream] = max(clock.get(stream, 0), index)
