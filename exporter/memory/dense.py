"""Give a store vectors of its passages: made elsewhere, or by a sentence encoder here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glimmer_export.exporter.links import require_no_link_below, resolved
from glimmer_export.exporter.memory.embeddings import given_rows
from glimmer_export.exporter.memory.progress import progress_bar
from glimmer_export.exporter.memory.sentence_encoder import copy_encoder, encoded_rows, read_encoder
from glimmer_export.exporter.publish import publish_directory
from glimmer_export.exporter.whole_file import replace_file
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.bundle import verify_file
from glimmer_export.runtime.contract import (
    MANIFEST,
    EmbeddingsError,
    FileEntry,
    OptionError,
    StoreError,
    StoreManifest,
    file_digest,
    read_store_manifest,
    record_to_json,
)
from glimmer_export.runtime.contract.dense_layout import (
    DENSE,
    DENSE_SCHEMA_VERSION,
    EMBEDDINGS,
    ENCODER,
    NUMBERS,
    DenseManifest,
    EncoderEntry,
)
from glimmer_export.runtime.contract.store_mending import saying_what_mends
from glimmer_export.runtime.passage_texts import PassageTexts
from glimmer_export.runtime.retrieval.encoder import SentenceEncoder
from glimmer_export.runtime.tombstones import live_end, read_tombstones

__all__ = ["DenseSummary", "index_store"]



@dataclass(frozen=True)
class DenseSummary:
    """What was made. `bytes` is the size of the index's files; `encoder`: questions can be encoded here too."""

    vectors: int
    dimension: int
    encoder: bool
    bytes: int
    seconds: float


def index_store(
    store: str | Path, *, embeddings: str | Path | None = None, ids: str | Path | None = None,
    encoder: str | Path | None = None, overwrite: bool = False, batch_size: int = 32, threads: int | None = None,
    progress: bool = False,
) -> DenseSummary:
    """Write `store`/dense: one vector a passage, from `embeddings` or by `encoder`, one of the two.

    `embeddings` is a .npy file, (passages, dimension) float32 or float16, its rows by passage number, or in the order
    of `ids`, a file with a passage id in JSON a line. `encoder` is a directory with `model.onnx`, `tokenizer.json` and
    `encoder.json` (EncoderSettings); `batch_size` passages of like length are encoded in one run. `overwrite` replaces
    vectors that are there.

    Raises EmbeddingsError, PassageError (an id that the store does not hold), StoreError (a damaged store, or one that
    was changed meanwhile), OutputError (vectors are there, a full disk), BackendError without ONNX Runtime.
    """
    started, store = time.monotonic(), resolved(store)
    if (embeddings is None) == (encoder is None) or (ids is not None and embeddings is None):
        raise OptionError(
            "index", expected="embeddings, with ids or without, or an encoder", found="another combination",
            fix="give one of the two",
        )
    manifest = read_store_manifest(store)
    require_no_link_below(store, DENSE, subject=f"store {store}", error=StoreError)
    with (
        publish_directory(store / DENSE, overwrite=overwrite, inputs=[embeddings, ids, encoder]) as work,
        _texts(store, manifest) as texts,
    ):
        numbers = texts.all_numbers()
        if not numbers:
            raise StoreError(f"store {store}", expected="at least one passage", found="none", fix="append some to it")
        entry = None
        if embeddings is not None:
            chunks: Iterable[Array] = given_rows(Path(embeddings), None if ids is None else Path(ids), texts, numbers)
        else:
            assert encoder is not None
            entry, loaded = _encoder(Path(encoder), work, threads)
            chunks = encoded_rows(loaded, texts, numbers, batch_size)
        with progress_bar("Writing vectors", len(numbers), shown=progress) as advance:
            dimension = _write_rows(work / EMBEDDINGS, chunks, len(numbers), advance)
        with (work / NUMBERS).open("wb") as stream:
            np.save(stream, np.array(numbers, np.int64), allow_pickle=False)
        if read_store_manifest(store) != manifest:
            raise StoreError(
                f"store {store}", expected="no change while it is indexed", found="one", fix="index it again"
            )
        dense = DenseManifest(
            schema_version=DENSE_SCHEMA_VERSION, generation=manifest.generation, texts_sha256=manifest.texts.sha256,
            num_vectors=len(numbers), dimension=dimension, embeddings=_entry(work, work / EMBEDDINGS),
            numbers=_entry(work, work / NUMBERS), encoder=entry,
        )
        replace_file(work / MANIFEST, record_to_json(dense).encode())
    return DenseSummary(
        vectors=len(numbers), dimension=dimension, encoder=entry is not None,
        bytes=sum(file.bytes for file in dense.files()), seconds=time.monotonic() - started,
    )


@contextmanager
def _texts(store: Path, manifest: StoreManifest) -> Iterator[PassageTexts]:
    with saying_what_mends(store, manifest, manifest.texts.path):
        verify_file(store, manifest.texts, error=StoreError, subject=f"store {store}", fix="")
    end = live_end(manifest.num_numbers, read_tombstones(store, manifest))
    texts = PassageTexts(store / manifest.texts.path, end)
    try:
        yield texts
    finally:
        texts.close()


def _encoder(source: Path, work: Path, threads: int | None) -> tuple[EncoderEntry, SentenceEncoder]:
    """A copy of the encoder below `work`, how the manifest names it, and the copy, loaded: what is kept, works."""
    settings, names = read_encoder(source)
    copy_encoder(source, work / ENCODER, names)
    *graph, tokenizer = (_entry(work, work / ENCODER / name) for name in names)
    try:
        loaded = SentenceEncoder(work / graph[0].path, work / tokenizer.path, settings, threads=threads)
    except StoreError as error:
        raise EmbeddingsError(f"encoder {source}", expected=error.expected, found=error.found, fix=error.fix) from None
    return EncoderEntry(tuple(graph), tokenizer, settings), loaded


def _entry(directory: Path, path: Path) -> FileEntry:
    return FileEntry(path.relative_to(directory).as_posix(), path.stat().st_size, file_digest(path))


def _write_rows(path: Path, chunks: Iterable[Array], num_rows: int, advance: Callable[[int], None]) -> int:
    """Write a .npy file of float32 chunk by chunk, and give its second dimension."""
    dimension = 0
    with path.open("wb") as stream:
        for chunk in chunks:
            if not dimension:
                dimension = chunk.shape[1]
                header = {"descr": "<f4", "fortran_order": False, "shape": (num_rows, dimension)}
                np.lib.format.write_array_header_1_0(stream, header)
            stream.write(np.ascontiguousarray(chunk, "<f4").tobytes())
            advance(len(chunk))
        stream.flush()
        os.fsync(stream.fileno())
    return dimension
