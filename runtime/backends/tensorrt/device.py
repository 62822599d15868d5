"""One GPU's streams and memory: tensors that stay there, and what goes in and comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import accumulate
from math import prod
from threading import RLock
from typing import Any, cast

import numpy as np

from glimmer_export.runtime.backends.contract import Array, Spec, Tensor
from glimmer_export.runtime.backends.cuda import Cuda
from glimmer_export.runtime.backends.tensorrt.buffers import DevicePool, Layout, Lease, PinnedPool
from glimmer_export.runtime.backends.tensorrt.passage_loader import PassageLoader
from glimmer_export.runtime.contract import BackendError
from glimmer_export.runtime.passage_memory import PassageMemory

__all__ = ["CudaDevice", "CudaTensor"]


class CudaTensor:
    """A tensor in memory that the GPU reads: its own, or on a Jetson the host's too."""

    __slots__ = ("_device", "address", "dtype", "lease", "shape")

    def __init__(self, device: CudaDevice, lease: Lease, offset: int, spec: Spec) -> None:
        self._device, self.lease = device, lease
        self.shape: tuple[int, ...] = spec[0]
        self.dtype: np.dtype[Any] = spec[1]
        self.address = lease.address + offset

    def fetch(self) -> Callable[[], Array]:
        """Queue a copy to the host; what is returned waits for it and gives it."""
        return self._device.fetch(self)


class CudaDevice:
    """A GPU with the stream that graphs run on, and a second that memory comes by meanwhile: the same if not `overlap`.

    Whoever queues work holds `lock`, so that what several threads queue is not mixed up and a capture holds one
    thread's work alone; nobody waits for the GPU under it but to make room in its memory.
    """

    eos_interval = 4

    def __init__(self, cuda: Cuda, passage_cache_bytes: int = 0, *, overlap: bool = True) -> None:
        """Raises OptionError for a passage cache on a GPU that has no memory of its own."""
        self.cuda = cuda
        self.lock = RLock()
        self._pinned = PinnedPool(cuda, self._reclaim)
        self._loader = PassageLoader(cuda, self.lock, self._pinned, self._reclaim, passage_cache_bytes)
        self.stream = cuda.stream() if overlap else self._loader.stream
        self._pool = DevicePool(cuda, self._reclaim, self.stream)
        self._closed = False
        self._idle: list[Callable[[], None]] = []

    def when_reclaimed(self, let_go: Callable[[], None]) -> None:
        """Have this called where memory is short: to let go of what nothing queued uses."""
        self._idle.append(let_go)

    def take(self, num_bytes: int, *, by_host: bool = False) -> Lease:
        """Memory for the stream's work; `by_host`, where host and GPU share one memory, such as the host may write.

        Raises DeviceMemoryError.
        """
        pool = self._pinned if by_host and self.cuda.gpu.integrated else self._pool
        return pool.take(num_bytes)

    def place(self, tensors: Mapping[str, Tensor]) -> dict[str, CudaTensor]:
        """Tensors of this device as they are, and arrays copied to it by one copy, in the order of the stream."""
        arrays = {name: tensor for name, tensor in tensors.items() if isinstance(tensor, np.ndarray)}
        placed = self._upload(arrays) if arrays else {}
        return {name: placed.get(name) or cast("CudaTensor", tensor) for name, tensor in tensors.items()}

    def empty(self, layout: Layout) -> dict[str, CudaTensor]:
        """Tensors for the stream's next work to write; their memory is free when none of them is referred to."""
        return self._tensors(self._pool.take(layout.num_bytes), layout)

    def constants(self, arrays: Mapping[str, Array]) -> dict[str, CudaTensor]:
        """Copies of the host's arrays."""
        with self.lock:
            self.check()
            return self.place(arrays)

    def zeros(self, specs: Mapping[str, Spec]) -> dict[str, CudaTensor]:
        """Tensors of zeros."""
        layout = Layout.of(specs)
        with self.lock:
            self.check()
            lease = self._pool.take(layout.num_bytes)
            self.cuda.clear(lease.address, layout.num_bytes, self.stream)
        return self._tensors(lease, layout)

    def memory(self, rows: Sequence[Sequence[PassageMemory]], num_tokens: int) -> dict[str, CudaTensor]:
        """What `padded_memory` lays out, copied on the second stream."""
        self.check()
        return self._tensors(*self._loader.load(rows, num_tokens))

    @property
    def passage_cache_counts(self) -> tuple[int, int]:
        """How many passages the cache had, and had not."""
        return self._loader.cache.hits, self._loader.cache.misses

    @contextmanager
    def reading(self, tensors: Iterable[CudaTensor]) -> Iterator[None]:
        """What is queued on the stream inside reads these: after their copies, and before they are written anew."""
        leases = {id(tensor.lease): tensor.lease for tensor in tensors}.values()
        for lease in leases:
            lease.pool.wait_ready(lease, self.stream)
        yield
        for lease in leases:
            if lease.pool is not self._pool:
                lease.pool.record_used(lease, self.stream)

    def fetch(self, tensor: CudaTensor) -> Callable[[], Array]:
        """Queue a copy to the host; what is returned waits for it and gives it, and does not keep the tensor."""
        shape, dtype = tensor.shape, tensor.dtype
        num_bytes = prod(shape) * dtype.itemsize
        with self.lock:
            self.check()
            with self.reading([tensor]):
                wait = self.fetch_bytes([(tensor.address, num_bytes)])

        def array() -> Array:
            found: Array = wait().host[:num_bytes].copy().view(dtype)
            return found.reshape(shape)

        return array

    def fetch_bytes(self, stretches: Sequence[tuple[int, int]]) -> Callable[[], Lease]:
        """Queue copies to the host, of addresses and bytes, one behind the other; what is returned waits for them.

        It gives page-locked memory that begins with them. Whoever calls this holds the lock.
        """
        ends = list(accumulate(num_bytes for _, num_bytes in stretches))
        lease = self._pinned.take(ends[-1])
        for (address, num_bytes), end in zip(stretches, ends, strict=True):
            self.cuda.copy(lease.address + end - num_bytes, address, num_bytes, self.stream)
        copied = self._pinned.record_used(lease, self.stream)

        def wait() -> Lease:
            self.cuda.synchronize_event(copied)
            return lease

        return wait

    def write(self, target: Lease, offset: int, content: Array) -> None:
        """Write an array of the host there, in the order of the stream; page-locked memory at once, if none reads it.

        Whoever calls this holds the lock.
        """
        num_bytes = content.nbytes
        staging = target if target.stretch.pinned is not None else self._pinned.take(num_bytes)
        begin = offset if staging is target else 0
        staging.host[begin : begin + num_bytes] = np.ascontiguousarray(content).reshape(-1).view(np.uint8)
        if staging is not target:
            self.cuda.copy(target.address + offset, staging.address, num_bytes, self.stream)
            self._pinned.record_used(staging, self.stream)

    def check(self) -> None:
        """Raise BackendError if the device was closed."""
        if self._closed:
            raise BackendError(
                f"GPU {self.cuda.gpu.name}", expected="an open backend", found="a closed one",
                fix="open another session",
            )

    def synchronize(self) -> None:
        """Wait for everything that is queued."""
        for stream in (self.stream, self._loader.stream):
            self.cuda.synchronize(stream)

    def close(self) -> None:
        """Wait, and give everything back; raises DeviceLostError for a GPU that failed."""
        with self.lock:
            if self._closed:
                return
            self._closed = True
            self._loader.cache.clear()
            self.synchronize()
            for pool in (self._pool, self._loader.pool, self._pinned):
                pool.close()
            for stream in {self.stream, self._loader.stream}:
                self.cuda.destroy_stream(stream)

    def _reclaim(self) -> None:
        """Make room: what is kept for another time goes back to CUDA."""
        self._loader.cache.clear()
        self.synchronize()
        for let_go in self._idle:
            let_go()
        for pool in (self._pool, self._loader.pool, self._pinned):
            pool.trim()

    def _upload(self, arrays: Mapping[str, Array]) -> dict[str, CudaTensor]:
        layout = Layout.of_arrays(arrays)
        staging = self._pinned.take(layout.num_bytes)
        layout.write(staging, arrays)
        if self.cuda.gpu.integrated:
            return self._tensors(staging, layout)
        lease = self._pool.take(layout.num_bytes)
        self.cuda.copy(lease.address, staging.address, layout.num_bytes, self.stream)
        self._pinned.record_used(staging, self.stream)
        return self._tensors(lease, layout)

    def _tensors(self, lease: Lease, layout: Layout) -> dict[str, CudaTensor]:
        return {name: CudaTensor(self, lease, layout.offsets[name], spec) for name, spec in layout.specs.items()}
