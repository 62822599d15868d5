"""Entries of shards in files of their own: a store of thousands has a manifest of some kilobytes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from glimmer_export.exporter.files.whole_file import replace_file
from glimmer_export.runtime.contract import FileEntry, ShardEntry, ShardListEntry
from glimmer_export.runtime.contract.records import record_to_lines
from glimmer_export.runtime.contract.store_layout import INLINE_SHARDS, LISTED_SHARDS, shard_list_name
from glimmer_export.runtime.contract.store_manifest import ShardList

__all__ = ["built_lists", "write_shard_list"]


def write_shard_list(root: Path, name: str, shards: Sequence[ShardEntry]) -> ShardListEntry:
    """Write the list `name` below `root`, and say how a manifest names it."""
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    replace_file(root / name, record_to_lines(ShardList(tuple(shards))).encode())
    return ShardListEntry(
        FileEntry.named(name, root / name), len(shards), sum(shard.num_passages for shard in shards),
        sum(shard.num_tokens for shard in shards), shards[0].first,
    )


def built_lists(
    root: Path, generation: int, shards: Sequence[ShardEntry]
) -> tuple[tuple[ShardListEntry, ...], tuple[ShardEntry, ...]]:
    """The `shard_lists` and `shards` of a new store's manifest; lists are written below `root`, if there are many."""
    if len(shards) <= INLINE_SHARDS:
        return (), tuple(shards)
    starts = range(0, len(shards), LISTED_SHARDS)
    names = (shard_list_name(generation, place) for place in range(len(starts)))
    return tuple(
        write_shard_list(root, name, shards[start : start + LISTED_SHARDS])
        for name, start in zip(names, starts, strict=True)
    ), ()
