"""Passages' memory on its way to the GPU: on a stream of its own, while the question is encoded on the other.

What was read last may be kept there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from itertools import accumulate
from math import prod
from threading import RLock

import numpy as np

from glimmer_export.runtime.backends.cuda import Cuda
from glimmer_export.runtime.backends.tensorrt.buffers import DevicePool, Layout, Lease, PinnedPool
from glimmer_export.runtime.contract import DeviceMemoryError, OptionError
from glimmer_export.runtime.passage_memory import CODES, PassageMemory, padded_small, write_codes

__all__ = ["PassageLoader"]

Rows = Sequence[Sequence[PassageMemory]]


class PassageCache:
    """Passages by key, at most `capacity_bytes` of them; the one not read for longest goes first.

    Not safe from several threads: its device holds a lock. What is evicted or cleared stays while a lease refers to it.
    """

    def __init__(self, capacity_bytes: int, take: Callable[[int], Lease]) -> None:
        self.capacity_bytes, self._take = capacity_bytes, take
        self.num_bytes = 0
        self.hits = self.misses = 0
        self._leases: OrderedDict[Hashable, Lease] = OrderedDict()

    def get(self, key: Hashable) -> Lease | None:
        """A passage's memory, which counts as read now; None if it is not here."""
        lease = self._leases.get(key)
        if lease is None:
            self.misses += self.capacity_bytes > 0
            return None
        self.hits += 1
        self._leases.move_to_end(key)
        return lease

    def put(self, key: Hashable, num_bytes: int) -> Lease | None:
        """Room for a passage to be copied to; None if it is here, or is larger than the whole cache."""
        if key in self._leases or num_bytes > self.capacity_bytes:
            return None
        # Room is made before it is taken, and once more for what rounding added.
        self._evict(self.capacity_bytes - num_bytes)
        try:
            lease = self._take(num_bytes)
        except DeviceMemoryError:
            # An answer does not fail for want of a cache: it makes do with less.
            self.capacity_bytes //= 2
            return None
        if lease.size > self.capacity_bytes:
            return None
        self._evict(self.capacity_bytes - lease.size)
        self._leases[key] = lease
        self.num_bytes += lease.size
        return lease

    def clear(self) -> None:
        """Forget everything."""
        self._evict(0)

    def _evict(self, limit: int) -> None:
        while self.num_bytes > limit:
            self.num_bytes -= self._leases.popitem(last=False)[1].size


class PassageLoader:
    """Lays memory out on the GPU as `padded_memory` does; padding never crosses, nor does what the cache holds.

    Where host and GPU share one memory nothing is copied: passages are laid out in page-locked memory, which the GPU
    reads.
    """

    def __init__(
        self, cuda: Cuda, lock: RLock, pinned: PinnedPool, reclaim: Callable[[], None], passage_cache_bytes: int
    ) -> None:
        """Raises OptionError for a passage cache on a GPU that has no memory of its own."""
        if passage_cache_bytes and cuda.gpu.integrated:
            raise OptionError(
                "passage_cache_bytes", expected=f"0, as {cuda.gpu.name} shares the host's memory",
                found=str(passage_cache_bytes), fix="leave it out: the store's pages are in that memory already",
            )
        self._cuda, self._lock, self._pinned = cuda, lock, pinned
        self.stream = cuda.stream()
        self.pool = DevicePool(cuda, reclaim, self.stream)
        self.cache = PassageCache(passage_cache_bytes, self.pool.take)

    def load(self, rows: Rows, num_tokens: int) -> tuple[Lease, Layout]:
        """What `padded_memory` gives; reading it must wait for the lease's arrival."""
        small = padded_small(rows, num_tokens)
        codes = rows[0][0].codes
        dims = (*small["memory_mask"].shape, *codes.shape[1:])
        behind = Layout.of_arrays(small)
        layout = Layout.of({CODES: (dims, codes.dtype), **behind.specs})
        if self._cuda.gpu.integrated:
            with self._lock:
                lease = self._pinned.take(layout.num_bytes)
            write_codes(layout.view(lease, CODES), rows)
            layout.write(lease, small)
            return lease, layout
        batch = _Batch(rows, dims, codes.dtype.itemsize)
        with self._lock:
            cached = [self.cache.get(passage.key) if passage.key else None for _, passage in batch.passages]
            missing = [item for item, lease in zip(batch.passages, cached, strict=True) if lease is None]
            sizes = [passage.codes.nbytes for _, passage in missing]
            staging = self._pinned.take(behind.num_bytes + sum(sizes))
        # Reading the store may wait for its disk, so the lock is others' meanwhile.
        behind.write(staging, small)
        starts = list(accumulate(sizes, initial=behind.num_bytes))[:-1]
        for start, (_, passage) in zip(starts, missing, strict=True):
            staging.host[start : start + passage.codes.nbytes] = passage.codes.reshape(-1).view(np.uint8)
        with self._lock:
            lease = self.pool.take(layout.num_bytes)
            memory_bytes = layout.offsets[next(iter(small))]
            self._cuda.clear(lease.address, memory_bytes, self.stream)
            self._copy(lease.address + memory_bytes, staging.address, behind.num_bytes)
            for (offset, passage), kept in zip(batch.passages, cached, strict=True):
                if kept is not None:
                    self._copy(lease.address + offset, kept.address, passage.codes.nbytes)
            for start, (offset, passage) in zip(starts, missing, strict=True):
                self._copy(lease.address + offset, staging.address + start, passage.codes.nbytes)
                kept = self.cache.put(passage.key, passage.codes.nbytes) if passage.key else None
                if kept is not None:
                    self._copy(kept.address, lease.address + offset, passage.codes.nbytes)
            self._pinned.record_used(staging, self.stream)
            self.pool.record_ready(lease, self.stream)
        return lease, layout

    def _copy(self, target: int, source: int, num_bytes: int) -> None:
        self._cuda.copy(target, source, num_bytes, self.stream)


class _Batch:
    """A batch's passages, each with the byte of the padded codes (b, k, n_p, ...) that it begins at."""

    def __init__(self, rows: Rows, dims: tuple[int, ...], itemsize: int) -> None:
        passage_bytes = prod(dims[2:]) * itemsize
        self.passages = [
            (passage_bytes * (batch * dims[1] + place), passage)
            for batch, row in enumerate(rows)
            for place, passage in enumerate(row)
        ]
