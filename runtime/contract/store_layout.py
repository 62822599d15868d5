"""The memory store on disk: shards of un-padded token states, one SQLite file of texts, one manifest.

    STORE/manifest.json             this file's StoreManifest
    STORE/shards/00000.safetensors  memory (tokens, d_model) float16, memory_scale (passages,) float32,
                                    offsets (passages + 1,) int64, input_ids (tokens,) int32
    STORE/passages.sqlite           ids, titles and texts by passage number, with their full-text index

Passages are numbered from 0 in corpus order; shard s holds the numbers from `passages_per_shard * s` on. A `fid`
store has no `memory` and no `memory_scale`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.contract.errors import StoreError
from runtime.contract.manifest import MANIFEST, FileEntry
from runtime.contract.records import read_json, record_from_json

__all__ = ["STORE_SCHEMA_VERSION", "TEXTS", "ShardEntry", "StoreManifest", "read_store_manifest", "shard_name"]

STORE_SCHEMA_VERSION = 1
TEXTS = "passages.sqlite"
FIX = "build the store again with `glimmer-export memory build`"


@dataclass(frozen=True)
class ShardEntry:
    """One shard: its file, and how many passages and tokens it holds."""

    file: FileEntry
    num_passages: int
    num_tokens: int


@dataclass(frozen=True)
class StoreManifest:
    """`manifest.json` of a store.

    `memory_digest` and `tokenizer_digest` bind it to a checkpoint; `precision` is that of the graph which built it;
    `num_truncated` counts passages longer than `passage_length`.
    """

    schema_version: int
    memory_digest: str
    tokenizer_digest: str
    codec: str | None
    precision: str | None
    d_model: int
    passage_length: int
    passages_per_shard: int
    num_passages: int
    num_tokens: int
    num_truncated: int
    corpus_sha256: str
    shards: tuple[ShardEntry, ...]
    texts: FileEntry


def shard_name(index: int) -> str:
    """Path of a shard below its store."""
    return f"shards/{index:05d}.safetensors"


def read_store_manifest(directory: Path) -> StoreManifest:
    """Parse and check `directory/manifest.json`.

    Raises StoreError: absent, not JSON, other schema, inconsistent counts.
    """
    subject = f"store {directory}, {MANIFEST}"
    data = read_json(directory / MANIFEST, error=StoreError, fix=FIX)
    version = data.get("schema_version")
    if isinstance(version, int) and version > STORE_SCHEMA_VERSION:
        raise StoreError(
            subject, expected=f"schema_version up to {STORE_SCHEMA_VERSION}", found=str(version),
            fix="install a newer glimmer-export",
        )
    manifest = record_from_json(StoreManifest, data, error=StoreError, subject=subject, fix=FIX)
    counts = [shard.num_passages for shard in manifest.shards]
    full = all(count == manifest.passages_per_shard for count in counts[:-1])
    last = not counts or 1 <= counts[-1] <= manifest.passages_per_shard
    tokens = sum(shard.num_tokens for shard in manifest.shards)
    if not full or not last or sum(counts) != manifest.num_passages or tokens != manifest.num_tokens:
        raise StoreError(subject, expected="shards that add up to its passages and tokens", found="others", fix=FIX)
    return manifest
