"""The memory store on disk: shards of un-padded token states, one SQLite file of texts, one manifest.

    STORE/manifest.json             this file's StoreManifest
    STORE/codec.safetensors         the codec's arrays, fitted once; none for fp16
    STORE/shards/00000.safetensors  the codec's tensors, offsets (passages + 1,) int64, input_ids (tokens,) int32
    STORE/passages.sqlite           ids, titles and texts by passage number, with their full-text index if it is FTS5's
    STORE/index-00000/              the files of a full-text index of tantivy
    STORE/dense/                    vectors of the passages, with a manifest of their own: dense_layout.py
    STORE/replicas/                 second copies of the manifest and the codec's arrays: store_replica.py

Each change of the store makes a generation, here the third:

    STORE/passages.00003.sqlite           the texts as they are then, in place of the file before
    STORE/tombstones/00003.safetensors    numbers (tombstones,) int64, rising: the passages that were deleted
    STORE/manifests/00002.json            the manifest before, a hard link to what was manifest.json

Passages are numbered from 0 in corpus order, through the shards in their order. A number is never given out twice: a
passage that replaces another has a number of its own. A file that a manifest names is never written again: a change
adds files and puts a new manifest in the old one's place. Who has the store open holds a shared lock on the manifest
that it read; older manifests that nobody holds, and the files that they alone name, are for `memory compact` to remove,
which numbers the passages anew. A `fid` store has no memory in its shards.

A text's row has the column `wikipedia_id` beside id, title and text, the page's name in KILT, from the first passage on
that has one: a file without the column names no page.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from glimmer_export.runtime.contract.manifest import FileEntry
from glimmer_export.runtime.contract.records import FileKind

__all__ = [
    "CODEC_ARRAYS",
    "FOLDING",
    "INDEX_ENGINES",
    "OLDER_MANIFESTS",
    "STORE_SCHEMA_VERSION",
    "TEXTS",
    "CodecSnr",
    "IndexEntry",
    "ShardEntry",
    "StoreManifest",
    "older_manifest_name",
    "shard_name",
    "texts_name",
    "tombstones_name",
]

STORE_SCHEMA_VERSION = 4
STORE_FILE = FileKind("glimmer-store", STORE_SCHEMA_VERSION, oldest=2)
TEXTS = "passages.sqlite"
OLDER_MANIFESTS = "manifests"
CODEC_ARRAYS = "codec.safetensors"
INDEX_ENGINES = ("fts5", "tantivy")
RETRIEVALS = ("bm25", "dense", "hybrid")
"""What passages are found by: their words, their vectors, or both rankings fused."""
FOLDING = 1
"""The folding of an index that is made now."""


@dataclass(frozen=True)
class ShardEntry:
    """One shard: its file, and how many passages and tokens it holds."""

    file: FileEntry
    num_passages: int
    num_tokens: int


@dataclass(frozen=True)
class CodecSnr:
    """Signal-to-noise ratio of a store's codec in dB: energy of the memory over that of the error, over all tokens.

    `fitted_db` is that of passages which its arrays were fitted to, None for a codec that is fitted to none;
    `outside_db` that of others, None if there were no others.
    """

    fitted_db: float | None
    outside_db: float | None

    @property
    def usual_db(self) -> float | None:
        """What passages of the store's kind have: the figure outside the sample, or where all are in it, on it."""
        return self.fitted_db if self.outside_db is None else self.outside_db


@dataclass(frozen=True)
class IndexEntry:
    """The full-text index: `fts5` lies in the file of texts, `tantivy` in files of its own.

    `folding` says how words were made of passages, and so of questions: 0 by the engine itself, 1 by `fold` of
    runtime/retrieval/folding.py, whose words the engine has only to stem. `unicode` is the version of the character
    database by which they were folded.
    """

    engine: str
    files: tuple[FileEntry, ...]
    folding: int = 0
    unicode: str | None = None


@dataclass(frozen=True)
class StoreManifest:
    """`manifest.json` of a store.

    `generation` counts the changes since it was built; `memory_digest` and `tokenizer_digest` bind it to a checkpoint;
    `codec_arrays` are what its codec was fitted to, None if it has none; `precision` is that of the graph which
    built it; `num_truncated` counts passages longer than `passage_length`, at most: of one that was deleted it may not
    be known. `num_passages` are those that are there: the numbers in `tombstones` are of passages that were deleted,
    whose rows the shards still hold. `corpus_sha256` is the corpus's digest, from which each change makes another with
    the digest of what it changed. Where `chunk_words` is not None, documents were cut into passages of so many words,
    and `{id}#{chunk}` is the id of each. `codec_snr` was measured when the store was built or converted, beside the
    memory as its encoder gave it, and no append changes it; None: not measured.
    """

    format: str = field(default=STORE_FILE.format, kw_only=True)
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
    shards: tuple[ShardEntry, ...]
    num_tombstones: int
    tombstones: FileEntry | None
    texts: FileEntry
    index: IndexEntry
    codec_snr: CodecSnr | None = None

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


def texts_name(generation: int) -> str:
    """Path of the texts that a generation writes, below its store."""
    return f"passages.{generation:05d}.sqlite" if generation else TEXTS


def tombstones_name(generation: int) -> str:
    """Path of the tombstones that a generation writes, below its store."""
    return f"tombstones/{generation:05d}.safetensors"


def older_manifest_name(generation: int) -> str:
    """Path below its store of a generation's manifest once another has taken its place."""
    return f"{OLDER_MANIFESTS}/{generation:05d}.json"
