"""What finds a store's passages: the full-text index, its vectors, or both, each checked against the manifests."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.bundle import verify_file
from glimmer_export.runtime.contract import MANIFEST, OptionError, StoreError, StoreManifest, is_volume_part
from glimmer_export.runtime.contract.dense_layout import DENSE, DenseManifest, EncoderEntry, read_dense_manifest
from glimmer_export.runtime.contract.store_layout import RETRIEVALS
from glimmer_export.runtime.contract.store_mending import saying_what_mends
from glimmer_export.runtime.external_data import check_external_data
from glimmer_export.runtime.passage_texts import PassageTexts
from glimmer_export.runtime.retrieval import Retriever
from glimmer_export.runtime.retrieval.dense import DenseIndex, DenseRetriever
from glimmer_export.runtime.retrieval.encoder import SentenceEncoder
from glimmer_export.runtime.retrieval.hits import HybridRetriever
from glimmer_export.runtime.retrieval.tantivy_bm25 import TantivyIndex

__all__ = ["open_retriever", "open_vectors"]

FIX = "copy the store again, or make the index again with `glimmer-export memory index`"


def open_retriever(
    directory: Path, manifest: StoreManifest, texts: PassageTexts, tombstones: NDArray[np.int64], retrieval: str, *,
    verify: bool, threads: int | None,
) -> Retriever:
    """The retriever of one of RETRIEVALS.

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
        retrievers.append(_dense(directory, manifest, verify=verify, threads=threads))
    return retrievers[0] if len(retrievers) == 1 else HybridRetriever(retrievers)


def open_vectors(directory: Path, manifest: StoreManifest, *, verify: bool) -> tuple[DenseManifest, DenseIndex]:
    """The vectors of a store and their manifest; raises StoreError if there are none, or not of this store."""
    dense = read_dense_manifest(directory, manifest)
    subject = f"index {directory / DENSE}"
    for entry in dense.files():
        verify_file(directory / DENSE, entry, error=StoreError, subject=subject, fix=FIX, digest=verify)
    named = {directory / DENSE / entry.path for entry in dense.files()} | {directory / DENSE / MANIFEST}
    for path in sorted((directory / DENSE).rglob("*")):
        if path not in named and not path.is_dir() and not is_volume_part(path.relative_to(directory / DENSE)):
            raise StoreError(subject, expected="only the files of its manifest", found=path.name, fix=FIX)
    if dense.encoder is not None:
        _check_encoder(directory / DENSE, dense.encoder, subject)
    return dense, DenseIndex(directory / DENSE, dense, num_numbers=manifest.num_numbers)


def _check_encoder(directory: Path, encoder: EncoderEntry, subject: str) -> None:
    """Refuse a graph that reads anything but its recorded files."""
    model, *others = encoder.graph
    folder = PurePosixPath(model.path).parent
    paths = {PurePosixPath(entry.path): entry.bytes for entry in others}
    sizes = {path.relative_to(folder).as_posix(): size for path, size in paths.items() if path.is_relative_to(folder)}
    check_external_data(
        directory / model.path, sizes, error=StoreError, subject=f"{subject}, {model.path}", fix=FIX
    )


def _full_text(
    directory: Path, manifest: StoreManifest, texts: PassageTexts, tombstones: NDArray[np.int64]
) -> Retriever:
    if manifest.index.engine == "fts5":
        return texts
    files = [file for segment in manifest.segments for file in segment.index]
    with saying_what_mends(directory, manifest, files[0].path if files else ""):
        return TantivyIndex(directory, manifest.segments, tombstones, folding=manifest.index.folding)


def _dense(directory: Path, manifest: StoreManifest, *, verify: bool, threads: int | None) -> DenseRetriever:
    dense, index = open_vectors(directory, manifest, verify=verify)
    if dense.encoder is None:
        raise StoreError(
            f"index {directory / DENSE}", expected="a sentence encoder, to encode questions",
            found="given vectors alone",
            fix="make it again with `glimmer-export memory index --encoder`, or search with "
            "MemoryStore.search_dense(embedding)",
        )
    files = dense.encoder.graph[0], dense.encoder.tokenizer
    graph, tokenizer = (directory / DENSE / file.path for file in files)
    return DenseRetriever(index, SentenceEncoder(graph, tokenizer, dense.encoder.settings, threads=threads))
