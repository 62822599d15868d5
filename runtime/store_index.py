"""What finds a store's passages: the full-text index, its vectors, or both, each checked against the manifests."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.bundle import verify_file
from glimmer_export.runtime.contract import FileEntry, OptionError, StoreError, StoreManifest
from glimmer_export.runtime.contract.dense_layout import read_vectors
from glimmer_export.runtime.contract.store_layout import RETRIEVALS
from glimmer_export.runtime.contract.store_mending import saying_what_mends
from glimmer_export.runtime.contract.vector_layout import EncoderEntry, VectorsEntry
from glimmer_export.runtime.external_data import check_external_data
from glimmer_export.runtime.passage_texts import PassageTexts
from glimmer_export.runtime.retrieval import Retriever
from glimmer_export.runtime.retrieval.dense import DenseIndex, DenseRetriever
from glimmer_export.runtime.retrieval.encoder import SentenceEncoder
from glimmer_export.runtime.retrieval.hits import HybridRetriever
from glimmer_export.runtime.retrieval.tantivy_bm25 import TantivyIndex

__all__ = ["open_encoder", "open_retriever", "open_vectors"]

FIX = "copy the store again, or make the index again with `glimmer-export memory index`"


def open_retriever(
    directory: Path, manifest: StoreManifest, texts: PassageTexts, tombstones: NDArray[np.int64], retrieval: str, *,
    verify: bool, known: Collection[FileEntry], threads: int | None,
) -> Retriever:
    """The retriever of one of RETRIEVALS; files that are `known` were verified before.

    Raises OptionError for another name, StoreError if the store has no index for it, or a damaged one, or vectors
    without the encoder of questions; MissingExtraError if a package is absent.
    """
    if retrieval not in RETRIEVALS:
        raise OptionError(
            "retrieval", expected=f"one of {', '.join(RETRIEVALS)}", found=str(retrieval), fix="choose one of these"
        )
    retrievers: list[Retriever] = []
    if retrieval != "dense":
        retrievers.append(_full_text(directory, manifest, texts, tombstones))
    if retrieval != "bm25":
        retrievers.append(_dense(directory, manifest, tombstones, verify=verify, known=known, threads=threads))
    return retrievers[0] if len(retrievers) == 1 else HybridRetriever(retrievers)


def open_vectors(
    directory: Path, manifest: StoreManifest, tombstones: NDArray[np.int64], *, verify: bool,
    known: Collection[FileEntry] = (),
) -> tuple[VectorsEntry, DenseIndex]:
    """The vectors of a store, as its manifest has them and opened; StoreError if there are none, or not of this store.

    Digests are looked at if they are to `verify`, but for files that are `known`, and the vectors themselves where a
    search reads few of them, which are checked as they are read.
    """
    vectors = read_vectors(directory, manifest)
    unread = {file for part in vectors.segments if part.checksums for file in (part.embeddings, part.checksums)}
    for entry in vectors.files():
        verify_file(
            directory, entry, error=StoreError, subject=f"store {directory}", fix=FIX,
            digest=verify and entry not in known and entry not in unread,
        )
    return vectors, DenseIndex(directory, vectors, tombstones, verify=verify)


def _check_reads(directory: Path, encoder: EncoderEntry) -> None:
    """Raise StoreError for an encoder whose graph reads anything but its recorded files."""
    model, *others = encoder.graph
    folder = PurePosixPath(model.path).parent
    paths = {PurePosixPath(entry.path): entry.bytes for entry in others}
    sizes = {path.relative_to(folder).as_posix(): size for path, size in paths.items() if path.is_relative_to(folder)}
    check_external_data(
        directory / model.path, sizes, error=StoreError, subject=f"index {directory / model.path}", fix=FIX
    )


def _full_text(
    directory: Path, manifest: StoreManifest, texts: PassageTexts, tombstones: NDArray[np.int64]
) -> Retriever:
    if manifest.index.engine == "fts5":
        return texts
    files = [file for segment in manifest.segments for file in segment.files]
    with saying_what_mends(directory, manifest, files[0].path if files else ""):
        return TantivyIndex(directory, manifest.segments, tombstones, folding=manifest.index.folding)


def _dense(
    directory: Path, manifest: StoreManifest, tombstones: NDArray[np.int64], *, verify: bool,
    known: Collection[FileEntry], threads: int | None,
) -> DenseRetriever:
    vectors, index = open_vectors(directory, manifest, tombstones, verify=verify, known=known)
    if vectors.encoder is None:
        raise StoreError(
            f"index of vectors of {directory}", expected="a sentence encoder, to encode questions",
            found="given vectors alone",
            fix="make it again with `glimmer-export memory index --encoder`, or search with "
            "MemoryStore.search_dense(embedding)",
        )
    return DenseRetriever(index, open_encoder(directory, vectors.encoder, threads, verify=False))


def open_encoder(
    directory: Path, encoder: EncoderEntry, threads: int | None, *, verify: bool = True
) -> SentenceEncoder:
    """A store's sentence encoder, its files verified, and loaded.

    Raises StoreError where it is damaged, or reads anything but its files, and as SentenceEncoder.
    """
    for entry in encoder.files():
        verify_file(directory, entry, error=StoreError, subject=f"store {directory}", fix=FIX, digest=verify)
    _check_reads(directory, encoder)
    graph, tokenizer = (directory / file.path for file in (encoder.graph[0], encoder.tokenizer))
    return SentenceEncoder(graph, tokenizer, encoder.settings, threads=threads)
