"""The memory of a store's shards, decoded by its codec and encoded by another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.memory.codec_error import CodecSample, ErrorMeter
from glimmer_export.exporter.memory.encode import encode_memory
from glimmer_export.exporter.memory.fit_codec import fit_codec
from glimmer_export.exporter.memory.shard_writer import ShardWriter
from glimmer_export.exporter.memory.work import ShardRecord
from glimmer_export.exporter.whole_file import whole_file
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.codecs import Codec
from glimmer_export.runtime.contract import FileEntry, ShardEntry, StoreManifest, file_digest
from glimmer_export.runtime.contract.shard_layout import shard_tensors
from glimmer_export.runtime.shard import Shard, open_shard
from glimmer_export.runtime.tombstones import read_tombstones

__all__ = ["Reencoding"]


@dataclass(frozen=True)
class Reencoding:
    """A store whose files were verified, and the codec that its memory is in."""

    source: Path
    manifest: StoreManifest
    codec: Codec

    def live_numbers(self) -> Sequence[int] | NDArray[np.int64]:
        """Numbers of the passages that are there, rising."""
        deleted = read_tombstones(self.source, self.manifest)
        if not len(deleted):
            return range(self.manifest.num_numbers)
        return np.setdiff1d(np.arange(self.manifest.num_numbers), deleted, assume_unique=True)

    def fit(self, codec: str, sample: CodecSample) -> dict[str, Array]:
        """Arrays of another codec, fitted to the sample's passages, in their order."""

        def memories() -> Iterator[Array]:
            first = 0
            for index, entry in enumerate(self.manifest.shards):
                rows = [row for row in range(entry.num_passages) if first + row in sample.fitted]
                yield from self._memories(self._open(index), rows)
                first += entry.num_passages

        return fit_codec(codec, self.manifest.d_model, memories())

    def write(
        self, store: Path, index: int, codec: Codec, sample: CodecSample, advance: Callable[[int], None]
    ) -> ShardRecord:
        """Write a shard below `store` in another codec; `advance` is told how many passages were written."""
        entry, meter, shard = self.manifest.shards[index], ErrorMeter(codec, sample), self._open(index)
        first = sum(earlier.num_passages for earlier in self.manifest.shards[:index])
        ids = [shard.tokens(row).tolist() for row in range(entry.num_passages)]
        with whole_file(store / entry.file.path) as temporary:
            with ShardWriter(temporary, ids, d_model=self.manifest.d_model, codec=codec.layout.name) as writer:
                for row, memory in enumerate(self._memories(shard, range(entry.num_passages))):
                    tensors = encode_memory(codec, memory, f"number {row} of {entry.file.path}")
                    writer.put(row, tensors)
                    meter.add(first + row, memory, tensors)
                    advance(1)
            file = FileEntry(entry.file.path, temporary.stat().st_size, file_digest(temporary))
        return ShardRecord(ShardEntry(file, entry.num_passages, entry.num_tokens), 0, meter.errors)

    def _open(self, index: int) -> Shard:
        entry = self.manifest.shards[index]
        tensors = shard_tensors(entry.num_passages, entry.num_tokens, self.manifest.d_model, self.manifest.codec)
        return open_shard(self.source / entry.file.path, tensors)

    def _memories(self, shard: Shard, rows: Iterable[int]) -> Iterator[Array]:
        for row in rows:
            yield self.codec.decode(shard.passage(row))
