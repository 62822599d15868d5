"""The shards of an open store: mapped when they are first read, and no more of them at a time than the system lets."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

from glimmer_export.runtime.contract import StoreManifest
from glimmer_export.runtime.contract.shard_layout import shard_tensors
from glimmer_export.runtime.contract.store_mending import saying_what_mends
from glimmer_export.runtime.shard import Shard, open_shard

__all__ = ["MappedShards"]

MAX_MAPPED_SHARDS = 256
"""A mapping holds a file descriptor, of which a process commonly has 1,024; a Wikipedia has thousands of shards."""


class MappedShards:
    """The shards of a manifest, by passage number. Safe from several threads; reading takes no lock."""

    def __init__(self, directory: Path, manifest: StoreManifest, check_in_place: Callable[[], None]) -> None:
        """`check_in_place` raises StoreError where the store is no longer the one that was opened."""
        self._directory, self._manifest, self._check_in_place = directory, manifest, check_in_place
        self._mapped: dict[int, Shard] = {}
        self._starts = list(accumulate((shard.num_passages for shard in manifest.shards), initial=0))

    def __len__(self) -> int:
        """How many are mapped."""
        return len(self._mapped)

    def place(self, number: int, check_open: Callable[[], None]) -> tuple[Shard, int]:
        """The shard of a passage, and its row there; `check_open` raises where the store was closed meanwhile.

        Raises StoreError as `map`.
        """
        index = bisect_right(self._starts, number) - 1
        shard = self._mapped.get(index)
        if shard is None:
            check_open()
            shard = self.map(index)
        return shard, number - self._starts[index]

    def map(self, index: int) -> Shard:
        """Map a shard, and let go of the first where there are many; two threads may both do so, harmlessly.

        Raises StoreError where it is damaged, or the store is no longer in its place.
        """
        entry, manifest = self._manifest.shards[index], self._manifest
        tensors = shard_tensors(entry.num_passages, entry.num_tokens, manifest.d_model, manifest.codec)
        try:
            with saying_what_mends(self._directory, manifest, entry.file.path):
                shard = open_shard(self._directory / entry.file.path, tensors)
        finally:
            self._check_in_place()  # only now: what was opened before was the store's
        self._mapped[index] = shard
        if len(self._mapped) > MAX_MAPPED_SHARDS:
            # A list is made in one step; an iterator would fail where another thread adds a shard between two.
            self._mapped.pop(list(self._mapped)[0], None)  # noqa: RUF015
        return shard

    def clear(self) -> None:
        """Let go of all; views handed out before stay valid."""
        self._mapped.clear()
