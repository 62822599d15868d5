"""Memory of the passages that were read last, kept on the GPU."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable

from glimmer_export.runtime.backends.tensorrt.buffers import Lease
from glimmer_export.runtime.contract import DeviceMemoryError

__all__ = ["PassageCache"]


class PassageCache:
    """Passages by key, at most `capacity_bytes` of them; the one not read for longest goes first.

    Not safe from several threads: its device holds a lock. What is evicted or cleared stays while a lease refers to it.
    """

    def __init__(self, capacity_bytes: int, take: Callable[[int], Lease]) -> None:
        self.capacity_bytes, self._take = capacity_bytes, take
        self.num_bytes = 0
        self._leases: OrderedDict[Hashable, Lease] = OrderedDict()

    def get(self, key: Hashable) -> Lease | None:
        """A passage's memory, which counts as read now; None where it is not here."""
        lease = self._leases.get(key)
        if lease is not None:
            self._leases.move_to_end(key)
        return lease

    def put(self, key: Hashable, num_bytes: int) -> Lease | None:
        """Room for a passage to be copied to; None where it is here, or is larger than the whole cache."""
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
