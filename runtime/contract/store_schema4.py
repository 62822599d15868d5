"""A store's manifest of schemas 2 to 4, as today's: one file of texts, and one segment of tantivy's index.

There each change wrote the texts, the index and the tombstones whole, and shards had no checksums.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from glimmer_export.runtime.contract.errors import StoreError
from glimmer_export.runtime.contract.manifest import FileEntry
from glimmer_export.runtime.contract.records import FileKind, record_of_kind
from glimmer_export.runtime.contract.store_layout import (
    STORE_FILE,
    CodecSnr,
    IndexEntry,
    SegmentEntry,
    ShardEntry,
    StoreManifest,
    TextsEntry,
    TombstonesEntry,
)

__all__ = ["SCHEMA_4", "is_of_schema_4", "manifest_of_schema_4"]

SCHEMA_4 = FileKind(STORE_FILE.format, 4, oldest=2)


@dataclass(frozen=True)
class EarlierShard:
    """As ShardEntry; the numbers are those after the shard before."""

    file: FileEntry
    num_passages: int
    num_tokens: int


@dataclass(frozen=True)
class EarlierIndex:
    """As IndexEntry, with the files of tantivy."""

    engine: str
    files: tuple[FileEntry, ...]
    folding: int = 0
    unicode: str | None = None


@dataclass(frozen=True)
class EarlierManifest:
    """`manifest.json` of schema 4."""

    format: str = field(default=SCHEMA_4.format, kw_only=True)
    schema_version: int
    generation: int
    memory_digest: str
    tokenizer_digest: str
    codec: str | None
    codec_arrays: FileEntry | None
    precision: str | None
    d_model: int
    passage_length: int
    passages_per_shard: int
    num_passages: int
    num_tokens: int
    num_truncated: int
    corpus_sha256: str
    chunk_words: int | None
    shards: tuple[EarlierShard, ...]
    num_tombstones: int
    tombstones: FileEntry | None
    texts: FileEntry
    index: EarlierIndex
    codec_snr: CodecSnr | None = None


def is_of_schema_4(data: dict[str, Any]) -> bool:
    """Whether a parsed manifest is of one of the schemas 2 to 4."""
    version = data.get("schema_version")
    return type(version) is int and SCHEMA_4.oldest <= version <= SCHEMA_4.version


def manifest_of_schema_4(data: dict[str, Any], *, subject: str, fix: str) -> StoreManifest:
    """Today's manifest of the same store; raises StoreError for fields that no writer of those schemas gave."""
    earlier = record_of_kind(data, SCHEMA_4, EarlierManifest, error=StoreError, subject=subject, fix=fix)
    starts = accumulate((shard.num_passages for shard in earlier.shards), initial=0)
    shards = tuple(
        ShardEntry(shard.file, shard.num_passages, shard.num_tokens, first)
        for shard, first in zip(earlier.shards, starts, strict=False)
    )
    numbers, tombstones = sum(shard.num_passages for shard in shards), earlier.tombstones
    for name, expected, found in (
        ("num_tokens", sum(shard.num_tokens for shard in shards), earlier.num_tokens),
        ("num_tombstones", numbers - earlier.num_passages, earlier.num_tombstones),
        ("tombstones", earlier.num_tombstones > 0, tombstones is not None),
    ):
        if expected != found:
            raise StoreError(f"{subject}, {name}", expected=str(expected), found=str(found), fix=fix)
    files = earlier.index.files
    segment = SegmentEntry(0, numbers, earlier.num_passages, files)
    return StoreManifest(
        schema_version=int(data["schema_version"]),
        generation=earlier.generation,
        memory_digest=earlier.memory_digest,
        tokenizer_digest=earlier.tokenizer_digest,
        codec=earlier.codec,
        codec_arrays=earlier.codec_arrays,
        precision=earlier.precision,
        d_model=earlier.d_model,
        passage_length=earlier.passage_length,
        passages_per_shard=earlier.passages_per_shard,
        num_passages=earlier.num_passages,
        num_truncated=earlier.num_truncated,
        corpus_sha256=earlier.corpus_sha256,
        earlier_sha256=None,
        chunk_words=earlier.chunk_words,
        index=IndexEntry(earlier.index.engine, earlier.index.folding, earlier.index.unicode),
        shard_lists=(),
        shards=shards,
        texts=(TextsEntry(earlier.texts, 0, numbers, earlier.num_passages),),
        segments=(segment,) if files or earlier.index.engine != "fts5" else (),
        tombstone_files=(TombstonesEntry(tombstones, earlier.num_tombstones),) if tombstones else (),
        tombstones=(),
        codec_snr=earlier.codec_snr,
    )
