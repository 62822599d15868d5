"""Vectors of a store's passages, an addition to it: the store's manifest does not name them, they name the store.

    STORE/dense/manifest.json       this file's DenseManifest
    STORE/dense/embeddings.npy      (passages, dimension) float32, as numpy writes it
    STORE/dense/numbers.npy         (passages,) int64: the passage number of each row, rising
    STORE/dense/encoder/            the sentence encoder that made them, if they were not given: graph and tokenizer

A passage fits a question as much as the inner product of their vectors is great.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from glimmer_export.runtime.contract.errors import StoreError
from glimmer_export.runtime.contract.files import is_there
from glimmer_export.runtime.contract.manifest import MANIFEST, FileEntry
from glimmer_export.runtime.contract.records import FileKind, read_record
from glimmer_export.runtime.contract.store_layout import StoreManifest

__all__ = [
    "DENSE",
    "DENSE_SCHEMA_VERSION",
    "EMBEDDINGS",
    "ENCODER",
    "NUMBERS",
    "POOLINGS",
    "DenseManifest",
    "EncoderEntry",
    "EncoderSettings",
    "read_dense_manifest",
]

DENSE_SCHEMA_VERSION = 2
DENSE_FILE = FileKind("glimmer-vectors", DENSE_SCHEMA_VERSION, oldest=1)
DENSE, EMBEDDINGS, NUMBERS, ENCODER = "dense", "embeddings.npy", "numbers.npy", "encoder"
POOLINGS = ("mean", "cls", "graph")
FIX = "make it again with `glimmer-export memory index`"


@dataclass(frozen=True)
class EncoderSettings:
    """How a sentence encoder is used; `encoder.json` of its directory.

    `pooling`: the `mean` over the tokens' states or the first one (`cls`), or what the graph gives as
    sentence_embedding (`graph`). `normalise`: to length 1. The prefixes stand before a question, and before a passage's
    title and text; longer texts are cut to `max_length` tokens.
    """

    pooling: str
    normalise: bool
    query_prefix: str
    passage_prefix: str
    max_length: int

    def fault(self) -> str | None:
        """What is wrong with them."""
        if self.pooling not in POOLINGS:
            return f"pooling {self.pooling!r}, not one of {', '.join(POOLINGS)}"
        return f"max_length {self.max_length}" if self.max_length < 1 else None


@dataclass(frozen=True)
class EncoderEntry:
    """A sentence encoder: the model file first among `graph`, which lists external data too."""

    graph: tuple[FileEntry, ...]
    tokenizer: FileEntry
    settings: EncoderSettings


@dataclass(frozen=True)
class DenseManifest:
    """`dense/manifest.json`. The texts' digest and the generation bind it to a store; paths are below `dense`."""

    format: str = field(default=DENSE_FILE.format, kw_only=True)
    schema_version: int
    generation: int
    texts_sha256: str
    num_vectors: int
    dimension: int
    embeddings: FileEntry
    numbers: FileEntry
    encoder: EncoderEntry | None

    def files(self) -> list[FileEntry]:
        """Every file that the manifest vouches for."""
        encoder = (*self.encoder.graph, self.encoder.tokenizer) if self.encoder else ()
        return [self.embeddings, self.numbers, *encoder]


def read_dense_manifest(store: Path, manifest: StoreManifest) -> DenseManifest:
    """Parse and check `store/dense/manifest.json` against the store's own manifest.

    Raises StoreError: absent, not JSON, other schema, of another store or of an earlier generation of this one.
    """
    directory = store / DENSE
    if not is_there(directory):
        raise StoreError(
            f"store {store}", expected="an index of vectors", found="none",
            fix="make it with `glimmer-export memory index`",
        )
    subject = f"index {directory}, {MANIFEST}"
    dense = read_record(directory / MANIFEST, DENSE_FILE, DenseManifest, error=StoreError, subject=subject, fix=FIX)
    for name, expected, found in (
        ("generation", manifest.generation, dense.generation),
        ("texts_sha256", manifest.texts_sha256, dense.texts_sha256),
        ("num_vectors", manifest.num_passages, dense.num_vectors),
    ):
        if expected != found:
            raise StoreError(subject, expected=f"{name} {expected}, the store's", found=str(found), fix=FIX)
    if dense.dimension < 1:
        raise StoreError(subject, expected="vectors of one dimension or more", found=str(dense.dimension), fix=FIX)
    if dense.encoder is not None and (not dense.encoder.graph or dense.encoder.settings.fault()):
        found = dense.encoder.settings.fault() or "no graph"
        raise StoreError(f"{subject}, encoder", expected="a sentence encoder", found=found, fix=FIX)
    return dense
