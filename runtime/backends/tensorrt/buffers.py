"""Memory that is taken and given back many times: pools of the GPU's memory and of the host's page-locked memory.

A pool hands out the lowest free address of a size, so that a loop which gives back what it took gets the same addresses
again, and CUDA graphs captured with them fit. Sizes are rounded up by at most an eighth, so that few are told apart.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import accumulate
from math import prod

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.backends.contract import Array, Spec
from glimmer_export.runtime.backends.cuda import Cuda, PinnedMemory
from glimmer_export.runtime.contract import DeviceMemoryError

__all__ = ["DevicePool", "Layout", "Lease", "PinnedPool"]

ALIGNMENT = 256
"""Bytes: what TensorRT asks of an I/O tensor's address."""


class _Stretch:
    """Memory that a pool owns. `used` is an event: when work of another stream, or of any, that used it is done."""

    __slots__ = ("address", "in_use", "pinned", "ready", "size", "used")

    def __init__(self, address: int, size: int, pinned: PinnedMemory | None) -> None:
        self.address, self.size, self.pinned = address, size, pinned
        self.ready: int | None = None
        self.used: int | None = None
        self.in_use = False

    def __lt__(self, other: _Stretch) -> bool:
        return self.address < other.address


class Lease:
    """A stretch of memory, its pool's again when nothing refers to the lease: giving back calls nothing of CUDA's."""

    __slots__ = ("_home", "arriving", "pool", "stretch")

    def __init__(self, pool: Pool, stretch: _Stretch, home: deque[_Stretch]) -> None:
        self.pool, self.stretch, self._home = pool, stretch, home
        self.arriving = False
        """Whether a copy to it is queued on the pool's own stream that the reader's stream does not wait for yet."""

    def __del__(self) -> None:
        self._home.append(self.stretch)

    @property
    def address(self) -> int:
        """Where it begins, as the GPU counts."""
        return self.stretch.address

    @property
    def size(self) -> int:
        """Bytes."""
        return self.stretch.size

    @property
    def host(self) -> NDArray[np.uint8]:
        """The host's view of page-locked memory, (size,) uint8."""
        assert self.stretch.pinned is not None
        return self.stretch.pinned.host


class Pool(ABC):
    """Memory of one kind. Not safe from several threads: its device holds a lock.

    `reclaim` makes room if there is none.
    """

    def __init__(self, cuda: Cuda, reclaim: Callable[[], None]) -> None:
        self._cuda, self._reclaim = cuda, reclaim
        self._free: dict[int, list[_Stretch]] = defaultdict(list)
        # Given back by whichever thread let go last, perhaps in the middle of one of our own methods.
        self._returned: deque[_Stretch] = deque()
        self._all: set[_Stretch] = set()

    def take(self, num_bytes: int) -> Lease:
        """At least `num_bytes` of memory; raises DeviceMemoryError."""
        self._collect()
        size = _rounded(num_bytes)
        stretch = self._reusable(self._free[size])
        if stretch is None:
            try:
                stretch = self._allocate(size)
            except DeviceMemoryError:
                self._reclaim()
                stretch = self._allocate(size)
            self._all.add(stretch)
        return Lease(self, stretch, self._returned)

    def record_ready(self, lease: Lease, stream: int) -> None:
        """Have the readers of what is queued on `stream` wait for it."""
        lease.stretch.ready = lease.stretch.ready or self._cuda.event()
        self._cuda.record(lease.stretch.ready, stream)
        lease.arriving = True

    def wait_ready(self, lease: Lease, stream: int) -> None:
        """Have `stream` wait for what was queued before `record_ready`, once."""
        if lease.arriving:
            assert lease.stretch.ready is not None
            self._cuda.wait(stream, lease.stretch.ready)
            lease.arriving = False

    def record_used(self, lease: Lease, stream: int) -> int:
        """Keep the memory from being written anew before what is queued on `stream` is done; the event of that."""
        stretch = lease.stretch
        stretch.used = stretch.used or self._cuda.event()
        self._cuda.record(stretch.used, stream)
        stretch.in_use = True
        return stretch.used

    def trim(self) -> None:
        """Give back to CUDA what is free; nothing may be queued that uses it."""
        self._collect()
        for free in self._free.values():
            for stretch in free:
                self._destroy(stretch)
            free.clear()

    def close(self) -> None:
        """Give back everything, leases' memory too; nothing may be queued that uses it."""
        while self._all:
            self._destroy(next(iter(self._all)))
        self._free.clear()

    def _collect(self) -> None:
        while self._returned:
            stretch = self._returned.popleft()
            heappush(self._free[stretch.size], stretch)

    def _destroy(self, stretch: _Stretch) -> None:
        self._all.discard(stretch)
        for event in (stretch.ready, stretch.used):
            if event is not None:
                self._cuda.destroy_event(event)
        self._release(stretch)

    @abstractmethod
    def _reusable(self, free: list[_Stretch]) -> _Stretch | None:
        """Take one that may be written now, in the order of the pool's stream, out of a heap."""

    @abstractmethod
    def _allocate(self, size: int) -> _Stretch:
        """New memory."""

    @abstractmethod
    def _release(self, stretch: _Stretch) -> None:
        """Give memory back to CUDA."""


class DevicePool(Pool):
    """Memory of the GPU, written in the order of one stream."""

    def __init__(self, cuda: Cuda, reclaim: Callable[[], None], stream: int) -> None:
        super().__init__(cuda, reclaim)
        self._stream = stream

    def _reusable(self, free: list[_Stretch]) -> _Stretch | None:
        if not free:
            return None
        stretch = heappop(free)
        if stretch.in_use:
            assert stretch.used is not None
            self._cuda.wait(self._stream, stretch.used)
            stretch.in_use = False
        return stretch

    def _allocate(self, size: int) -> _Stretch:
        return _Stretch(self._cuda.malloc(size), size, None)

    def _release(self, stretch: _Stretch) -> None:
        self._cuda.free(stretch.address)


class PinnedPool(Pool):
    """Page-locked memory of the host, which the host writes: so none is handed out that queued work still uses."""

    def _reusable(self, free: list[_Stretch]) -> _Stretch | None:
        waiting, found = [], None
        while free and found is None:
            stretch = heappop(free)
            if stretch.in_use and stretch.used is not None and not self._cuda.reached(stretch.used):
                waiting.append(stretch)
            else:
                stretch.in_use = False
                found = stretch
        for stretch in waiting:
            heappush(free, stretch)
        return found

    def _allocate(self, size: int) -> _Stretch:
        pinned = self._cuda.host_alloc(size)
        return _Stretch(pinned.address, size, pinned)

    def _release(self, stretch: _Stretch) -> None:
        assert stretch.pinned is not None
        self._cuda.host_free(stretch.pinned)


def _rounded(num_bytes: int) -> int:
    """Up to the next number that has four binary digits, then zeros; at least ALIGNMENT."""
    unit = max(ALIGNMENT, 1 << max(0, (num_bytes - 1).bit_length() - 4))
    return max(1, -(-num_bytes // unit)) * unit


@dataclass(frozen=True)
class Layout:
    """Where each tensor begins, in bytes, and the bytes of all."""

    specs: Mapping[str, Spec]
    offsets: Mapping[str, int]
    num_bytes: int

    @classmethod
    def of(cls, specs: Mapping[str, Spec]) -> Layout:
        """Tensors one behind the other, each aligned."""
        sizes = [-(-prod(shape) * dtype.itemsize // ALIGNMENT) * ALIGNMENT for shape, dtype in specs.values()]
        ends = list(accumulate(sizes))
        return cls(specs, dict(zip(specs, [0, *ends], strict=False)), ends[-1] if ends else 0)

    @classmethod
    def of_arrays(cls, arrays: Mapping[str, Array]) -> Layout:
        """Room for these arrays."""
        return cls.of({name: (array.shape, array.dtype) for name, array in arrays.items()})

    def view(self, lease: Lease, name: str, base: int = 0) -> Array:
        """One tensor in page-locked memory, of which `base` is where the layout begins."""
        shape, dtype = self.specs[name]
        begin = base + self.offsets[name]
        return lease.host[begin : begin + prod(shape) * dtype.itemsize].view(dtype).reshape(shape)

    def write(self, lease: Lease, arrays: Mapping[str, Array], base: int = 0) -> None:
        """Write arrays to their places in page-locked memory."""
        for name, array in arrays.items():
            self.view(lease, name, base)[...] = array
