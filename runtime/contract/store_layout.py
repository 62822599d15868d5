"""The memory store on disk: shards of un-padded token states, texts and their index, and one manifest that names them.

    STORE/manifest.json                   this file's StoreManifest
    STORE/codec.safetensors               the codec's arrays, fitted once; none for fp16
    STORE/shards/00000.safetensors        the codec's tensors, offsets (passages + 1,) int64, input_ids (tokens,) int32,
                                          checksums (passages,) uint32
    STORE/passages.sqlite                 ids, titles and texts by passage number, with FTS5 and their full-text index
    STORE/texts/00000-00000.sqlite        in its place with tantivy, without an index
    STORE/segments/00000-00000/           with tantivy the files of its index
    STORE/replicas/                       second copies of what nothing else makes again: store_replica.py

Each change of the store makes a generation; what it adds is named by it. Here the third, whose second shard this is:

    STORE/shards/00003-00001.safetensors  passages that it added, or that were merged from smaller shards
    STORE/texts/00003-00000.sqlite        texts that it added, or that were merged; so with segments
    STORE/passages.00003.sqlite           the texts as they are then, in place of the file before: with FTS5
    STORE/shard-lists/00003-00000.json    entries of shards, which the manifest names by their list
    STORE/tombstones/00003.safetensors    numbers (tombstones,) int64, rising: passages that were deleted
    STORE/manifests/00002.json            the manifest before, a hard link to what was manifest.json
    STORE/vectors/00003-00000.npy         vectors of passages, and their encoder below STORE/encoders: vector_layout.py
    STORE/dropped/00003.json              files that only older generations name: store_journal.py

Passages are numbered from 0 in corpus order. A number is given once and stays: what replaces a passage has a number of
its own. A shard, a file of texts and a segment each hold a range of numbers; the row of a passage that was deleted
stays, until the shard is written anew, and then has no tokens. A file that a manifest names is never written again: a
change adds files and puts a new manifest in the old one's place. Who has the store open holds a shared lock on the
manifest that it read. A `fid` store has no memory in its shards.

A text's row has the column `wikipedia_id` beside id, title and text, the page's name in KILT, from the first passage on
that has one: a file without the column names no page.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from itertools import chain

from glimmer_export.runtime.contract.manifest import FileEntry
from glimmer_export.runtime.contract.records import FileKind
from glimmer_export.runtime.contract.vector_layout import VectorsEntry

__all__ = [
    "CODEC_ARRAYS",
    "FOLDING",
    "INDEX_ENGINES",
    "INDEX_FOLDER",
    "INDEX_PATH",
    "JOURNALLED",
    "NAMED_PATHS",
    "OLDER_MANIFESTS",
    "SHARD_LIST_PATH",
    "SHARD_PATH",
    "STORE_SCHEMA_VERSION",
    "TEXTS",
    "TEXTS_PATH",
    "TOMBSTONES_PATH",
    "CodecSnr",
    "IndexEntry",
    "SegmentEntry",
    "ShardEntry",
    "ShardListEntry",
    "StoreManifest",
    "TextsEntry",
    "TombstonesEntry",
    "born_in",
    "changed_shard_name",
    "older_manifest_name",
    "segment_name",
    "shard_list_name",
    "shard_name",
    "texts_name",
    "texts_part_name",
    "tombstones_name",
]

STORE_SCHEMA_VERSION = 6
STORE_FILE = FileKind("glimmer-store", STORE_SCHEMA_VERSION, oldest=2)
TEXTS = "passages.sqlite"
OLDER_MANIFESTS = "manifests"
JOURNALLED = 5
"""The first schema whose changes note what they drop, and what corpus was before them."""
CODEC_ARRAYS = "codec.safetensors"
INDEX_ENGINES = ("fts5", "tantivy")
RETRIEVALS = ("bm25", "dense", "hybrid")
"""What passages are found by: their words, their vectors, or both rankings fused."""
FOLDING = 1
"""The folding of an index that is made now."""
INLINE_SHARDS, LISTED_SHARDS = 16, 1024
"""Shards that a writer leaves in the manifest itself, and those that one list has, at most."""
INLINE_TOMBSTONES = 512
"""Deleted numbers that a writer leaves in the manifest itself, at most."""
SHARD_PATH = r"shards/\d{5,}(-\d{5,})?\.safetensors"
SHARD_LIST_PATH = r"shard-lists/\d{5,}-\d{5,}\.json"
TEXTS_PATH = r"passages(\.\d{5,})?\.sqlite|texts/\d{5,}-\d{5,}\.sqlite|segments/\d{5,}-\d{5,}/texts\.sqlite"
INDEX_FOLDER = r"(index-\d{5,}|segments/\d{5,}-\d{5,})"
INDEX_PATH = rf"{INDEX_FOLDER}/[\w-]+\.\w+"
TOMBSTONES_PATH = r"tombstones/\d{5,}\.safetensors"
NAMED_PATHS = f"{SHARD_PATH}|{SHARD_LIST_PATH}|{TEXTS_PATH}|{INDEX_PATH}|{TOMBSTONES_PATH}"
"""Regular expressions of the paths, below a store, of files that its manifest and lists may name; vectors apart."""
BORN = re.compile(r"(?:shards|shard-lists|texts|segments|vectors)/(\d{5,})-\d{5,}|[\w-]+[./-](\d{5,})[./]")
BUILT = re.compile(r"shards/\d{5,}\.safetensors")


@dataclass(frozen=True)
class ShardEntry:
    """One shard: its file, and how many passages and tokens it holds, numbered from `first` on.

    `num_empty` of its passages were deleted before it was written: they have a row, and no tokens. `checksums`: whether
    the file has a checksum of each passage, as those of versions before 5 have not.
    """

    file: FileEntry
    num_passages: int
    num_tokens: int
    first: int = 0
    num_empty: int = 0
    checksums: bool = False

    @property
    def end(self) -> int:
        """The number after its last."""
        return self.first + self.num_passages


@dataclass(frozen=True)
class ShardListEntry:
    """A file of shard entries, which follow each other: how many, and what passages and tokens they hold together."""

    file: FileEntry
    num_shards: int
    num_passages: int
    num_tokens: int
    first: int

    @property
    def end(self) -> int:
        """The number after the last of its shards'."""
        return self.first + self.num_passages


@dataclass(frozen=True)
class TextsEntry:
    """A file of texts of the passages numbered from `first` on; that of FTS5 has its index too.

    `num_passages` of the `num_numbers` are in it: the others were deleted before it was written. Some of them may have
    been deleted since. `checksums`: whether it has a checksum of each, as those of versions before 6 have not.
    """

    file: FileEntry
    first: int
    num_numbers: int
    num_passages: int
    checksums: bool = False

    @property
    def end(self) -> int:
        """The number after its last."""
        return self.first + self.num_numbers


@dataclass(frozen=True)
class SegmentEntry:
    """The files of tantivy's index of the passages numbered from `first` on.

    `num_passages` of the `num_numbers` are in it, as in TextsEntry. `documents` says how many of them each of tantivy's
    own segments has, in the order of their names; none in an index of an earlier version, whose own list says it.
    """

    first: int
    num_numbers: int
    num_passages: int
    files: tuple[FileEntry, ...]
    documents: tuple[int, ...] = ()

    @property
    def end(self) -> int:
        """The number after its last."""
        return self.first + self.num_numbers


@dataclass(frozen=True)
class TombstonesEntry:
    """A file of so many numbers of deleted passages."""

    file: FileEntry
    count: int


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
    """The full-text index: `fts5` lies in the file of texts, `tantivy` in files of its own, those of the segments.

    `folding` says how words were made of passages, and so of questions: 0 by the engine itself, 1 by `fold` of
    runtime/retrieval/folding.py, whose words the engine has only to stem. `unicode` is the version of the character
    database by which they were folded.
    """

    engine: str
    folding: int = 0
    unicode: str | None = None


@dataclass(frozen=True)
class StoreManifest:
    """`manifest.json` of a store.

    `generation` counts the changes since it was built; `memory_digest` and `tokenizer_digest` bind it to a checkpoint;
    `codec_arrays` are what its codec was fitted to, None if it has none; `precision` is that of the graph which
    built it; `num_truncated` counts passages longer than `passage_length`, at most: of one that was deleted it may not
    be known. `num_passages` are those that are there. `corpus_sha256` is the corpus's digest, from which each change
    makes another with the digest of what it changed; `earlier_sha256` is that of the generation before, None of a
    build's. Where `chunk_words` is not None, documents were cut into passages of so many words, and `{id}#{chunk}` is
    the id of each. `codec_snr` was measured when the store was built or converted, beside the memory as its encoder
    gave it, and no append changes it; None: not measured.

    Shards follow each other: first those of the lists in `shard_lists`, then `shards`. So do the files of `texts`, of
    which FTS5 has one, and the `segments` of tantivy's index, which end where other numbers do. Deleted are the numbers
    of the files in `tombstone_files`, and `tombstones`, which rise; none is in two of them. `vectors` are those of the
    passages, None where the store has none: then an earlier version may have written some beside the manifest
    (dense_layout.py).
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
    num_truncated: int
    corpus_sha256: str
    earlier_sha256: str | None
    chunk_words: int | None
    index: IndexEntry
    shard_lists: tuple[ShardListEntry, ...]
    shards: tuple[ShardEntry, ...]
    texts: tuple[TextsEntry, ...]
    segments: tuple[SegmentEntry, ...]
    tombstone_files: tuple[TombstonesEntry, ...]
    tombstones: tuple[int, ...]
    codec_snr: CodecSnr | None = None
    vectors: VectorsEntry | None = None

    @property
    def num_numbers(self) -> int:
        """How many passage numbers were given out, deleted ones among them."""
        return sum(part.num_passages for part in self.shard_lists) + sum(part.num_passages for part in self.shards)

    @property
    def num_tokens(self) -> int:
        """Tokens in the shards, those of deleted passages among them where a shard still has them."""
        return sum(part.num_tokens for part in self.shard_lists) + sum(part.num_tokens for part in self.shards)

    @property
    def num_shards(self) -> int:
        """How many shards there are, listed ones among them."""
        return sum(part.num_shards for part in self.shard_lists) + len(self.shards)

    @property
    def num_tombstones(self) -> int:
        """How many numbers are deleted."""
        return sum(part.count for part in self.tombstone_files) + len(self.tombstones)

    @property
    def texts_sha256(self) -> str:
        """The digest of the texts, where one file has them all; of several, that of their digests."""
        digests = [part.file.sha256 for part in self.texts]
        return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()

    @property
    def index_engine(self) -> str:
        """What searches the texts."""
        return self.index.engine

    def files(self) -> list[FileEntry]:
        """Every file that the manifest itself names; the shards of `shard_lists` are named by those."""
        return [
            *([self.codec_arrays] if self.codec_arrays else []),
            *(deleted.file for deleted in self.tombstone_files),
            *(part.file for part in self.shard_lists),
            *(shard.file for shard in self.shards),
            *(part.file for part in self.texts),
            *chain.from_iterable(segment.files for segment in self.segments),
            *self.vector_files(),
        ]

    def vector_files(self) -> list[FileEntry]:
        """The files of its vectors: who searches by words alone needs none of them."""
        return self.vectors.files() if self.vectors else []


def shard_name(index: int) -> str:
    """Path of a shard of a build below its store."""
    return f"shards/{index:05d}.safetensors"


def changed_shard_name(generation: int, place: int) -> str:
    """Path of one of the shards that a change writes, below its store."""
    return f"shards/{generation:05d}-{place:05d}.safetensors"


def shard_list_name(generation: int, place: int) -> str:
    """Path of one of the lists of shards that a generation writes, below its store."""
    return f"shard-lists/{generation:05d}-{place:05d}.json"


def texts_part_name(generation: int, place: int) -> str:
    """Path of one of the files of texts that a generation writes beside tantivy's index, below its store."""
    return f"texts/{generation:05d}-{place:05d}.sqlite"


def segment_name(generation: int, place: int) -> str:
    """Folder of one of the segments of tantivy's index that a generation writes, below its store."""
    return f"segments/{generation:05d}-{place:05d}"


def texts_name(generation: int) -> str:
    """Path of the texts that a generation writes with FTS5, below its store."""
    return f"passages.{generation:05d}.sqlite" if generation else TEXTS


def tombstones_name(generation: int) -> str:
    """Path of the tombstones that a generation writes, below its store."""
    return f"tombstones/{generation:05d}.safetensors"


def older_manifest_name(generation: int) -> str:
    """Path below its store of a generation's manifest once another has taken its place."""
    return f"{OLDER_MANIFESTS}/{generation:05d}.json"


def born_in(path: str) -> int:
    """The generation whose name a file of a store has: no earlier one names it. 0 where its name does not say."""
    match = None if BUILT.fullmatch(path) else BORN.match(path)
    return int(match[1] or match[2]) if match else 0
