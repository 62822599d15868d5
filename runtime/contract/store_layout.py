"""The memory store on disk: shards of un-padded token states, one SQLite file of texts, one manifest.

    STORE/manifest.json             this file's StoreManifest
    STORE/codec.safetensors         the codec's arrays, fitted once; none for fp16
    STORE/shards/00000.safetensors  the codec's tensors, offsets (passages + 1,) int64, input_ids (tokens,) int32
    STORE/passages.sqlite           ids, titles and texts by passage number, with their full-text index if it is FTS5's
    STORE/index-00000/              the files of a full-text index of tantivy
    STORE/dense/                    vectors of the passages, with a manifest of their own: dense_layout.py

Passages are numbered from 0 in corpus order, through the shards in their order. A file that a manifest names is never
written again: a change of the store adds files and puts a new manifest in the old one's place. A `fid` store has no
memory in its shards.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from runtime.contract.errors import StoreError
from runtime.contract.manifest import MANIFEST, FileEntry
from runtime.contract.records import read_json, record_from_json

__all__ = [
    "CODEC_ARRAYS",
    "INDEX_ENGINES",
    "STORE_SCHEMA_VERSION",
    "TEXTS",
    "IndexEntry",
    "ShardEntry",
    "StoreManifest",
    "read_store_manifest",
    "shard_name",
]

STORE_SCHEMA_VERSION = 2
TEXTS = "passages.sqlite"
CODEC_ARRAYS = "codec.safetensors"
INDEX_ENGINES = ("fts5", "tantivy")
FIX = "build the store again with `glimmer-export memory build`"


@dataclass(frozen=True)
class ShardEntry:
    """One shard: its file, and how many passages and tokens it holds."""

    file: FileEntry
    num_passages: int
    num_tokens: int


@dataclass(frozen=True)
class IndexEntry:
    """The full-text index: `fts5` lies in the file of texts, `tantivy` in files of its own."""

    engine: str
    files: tuple[FileEntry, ...]


@dataclass(frozen=True)
class StoreManifest:
    """`manifest.json` of a store.

    `generation` counts the changes since it was built; `memory_digest` and `tokenizer_digest` bind it to a checkpoint;
    `codec_arrays` are what its codec was fitted to, None where it has none; `precision` is that of the graph which
    built it; `num_truncated` counts passages longer than `passage_length`. `num_passages` are those that are there:
    the numbers in `tombstones` are of passages that were deleted, whose rows the shards still hold.
    """

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
    shards: tuple[ShardEntry, ...]
    num_tombstones: int
    tombstones: FileEntry | None
    texts: FileEntry
    index: IndexEntry

    @property
    def num_numbers(self) -> int:
        """How many passage numbers were given out, deleted ones among them."""
        return sum(shard.num_passages for shard in self.shards)

    @property
    def index_engine(self) -> str:
        """What searches the texts."""
        return self.index.engine

    def files(self) -> list[FileEntry]:
        """Every file that the manifest vouches for."""
        optional = (self.codec_arrays, self.tombstones)
        shards = [shard.file for shard in self.shards]
        return [*(file for file in optional if file), *shards, self.texts, *self.index.files]


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
    if version != STORE_SCHEMA_VERSION or isinstance(version, bool):
        raise StoreError(subject, expected=f"schema_version {STORE_SCHEMA_VERSION}", found=repr(version), fix=FIX)
    manifest = record_from_json(StoreManifest, data, error=StoreError, subject=subject, fix=FIX)
    tokens = sum(shard.num_tokens for shard in manifest.shards)
    counts = (manifest.num_passages, manifest.num_tombstones, *(shard.num_passages for shard in manifest.shards))
    total = manifest.num_passages + manifest.num_tombstones
    if min(counts) < 0 or total != manifest.num_numbers or tokens != manifest.num_tokens:
        raise StoreError(subject, expected="shards that add up to its passages and tokens", found="others", fix=FIX)
    if manifest.index.engine not in INDEX_ENGINES:
        raise StoreError(
            subject, expected=f"an index of {' or '.join(INDEX_ENGINES)}", found=manifest.index.engine,
            fix="install a newer glimmer-export",
        )
    return manifest
