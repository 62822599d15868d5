"""Vectors of a store as versions before segments wrote them: an addition to it, which names the store.

    STORE/dense/manifest.json       this file's DenseManifest
    STORE/dense/embeddings.npy      (passages, dimension) float32, as numpy writes it
    STORE/dense/numbers.npy         (passages,) int64: the passage number of each row, rising
    STORE/dense/encoder/            the sentence encoder that made them, if they were not given: graph and tokenizer

The next change of the store names the same files in the store's manifest, as vector_layout.py has them.
"""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from glimmer_export.runtime.contract.errors import StoreError
from glimmer_export.runtime.contract.files import is_there
from glimmer_export.runtime.contract.manifest import MANIFEST, FileEntry
from glimmer_export.runtime.contract.records import FileKind, read_record
from glimmer_export.runtime.contract.store_layout import StoreManifest
from glimmer_export.runtime.contract.vector_layout import (
    EncoderEntry,
    VectorSegmentEntry,
    VectorsEntry,
    faults_of_vectors,
)

__all__ = ["DENSE", "DENSE_SCHEMA_VERSION", "DenseManifest", "adopted_vectors", "read_dense_manifest", "read_vectors"]

DENSE_SCHEMA_VERSION = 2
DENSE_FILE = FileKind("glimmer-vectors", DENSE_SCHEMA_VERSION, oldest=1)
DENSE = "dense"
FIX = "make it again with `glimmer-export memory index`"


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
        encoder = self.encoder.files() if self.encoder else []
        return [self.embeddings, self.numbers, *encoder]


def read_vectors(store: Path, manifest: StoreManifest) -> VectorsEntry:
    """What a store has of vectors: by its manifest, or as an earlier version wrote them beside it.

    Raises StoreError: there are none, or those of an earlier version are of another store or generation.
    """
    if manifest.vectors is not None:
        return manifest.vectors
    dense = read_dense_manifest(store, manifest)
    encoder = dense.encoder
    if encoder is not None:
        encoder = EncoderEntry(tuple(map(_below, encoder.graph)), _below(encoder.tokenizer), encoder.settings)
    segment = VectorSegmentEntry(
        0, manifest.num_numbers, dense.num_vectors, _below(dense.embeddings), _below(dense.numbers)
    )
    entry = VectorsEntry(dense.dimension, encoder, (segment,))
    for name, expected, found in faults_of_vectors(entry, manifest.num_numbers):
        raise StoreError(f"{_subject(store)}, {name}", expected=expected, found=repr(found)[:80], fix=FIX)
    return entry


def adopted_vectors(store: Path, manifest: StoreManifest) -> StoreManifest:
    """The manifest with the vectors of an earlier version, where the store has such, and they are its own."""
    with suppress(StoreError):
        return dataclasses.replace(manifest, vectors=read_vectors(store, manifest))
    return manifest


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
    subject = _subject(store)
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


def _subject(store: Path) -> str:
    return f"index {store / DENSE}, {MANIFEST}"


def _below(entry: FileEntry) -> FileEntry:
    return dataclasses.replace(entry, path=f"{DENSE}/{entry.path}")
