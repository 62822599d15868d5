"""Give a store vectors of its passages: made elsewhere, or by a sentence encoder here.

    ENCODER/model.onnx        input_ids, attention_mask [, token_type_ids] -> last_hidden_state or sentence_embedding
    ENCODER/tokenizer.json    of the Hugging Face library tokenizers
    ENCODER/encoder.json      EncoderSettings
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from glimmer_export.exporter.files.links import require_no_link_below, resolved
from glimmer_export.exporter.files.publish import publish_directory
from glimmer_export.exporter.files.whole_file import replace_file
from glimmer_export.exporter.report.progress import progress_bar
from glimmer_export.runtime.array_files import map_npy
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.bundle import verify_file
from glimmer_export.runtime.contract import (
    MANIFEST,
    EmbeddingsError,
    FileEntry,
    OptionError,
    StoreError,
    StoreManifest,
    check_regular,
    inside,
    is_there,
    map_regular,
    read_limited,
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
    EncoderSettings,
)
from glimmer_export.runtime.contract.json_text import parse_json
from glimmer_export.runtime.contract.kinds import refuse_ours
from glimmer_export.runtime.contract.records import read_json, record_from_json
from glimmer_export.runtime.contract.store_mending import saying_what_mends
from glimmer_export.runtime.external_data import external_data
from glimmer_export.runtime.generation import read_tombstones
from glimmer_export.runtime.passage_texts import PassageTexts
from glimmer_export.runtime.retrieval.encoder import SentenceEncoder

__all__ = ["DenseSummary", "copy_encoder", "encoded_rows", "given_rows", "index_store", "read_encoder"]

AT_ONCE = 4096
MAX_IDS_BYTES = 1 << 30
"""Of a file with the ids of all passages: a Wikipedia's 21 million have 300 MB."""
MODEL, TOKENIZER, SETTINGS = "model.onnx", "tokenizer.json", "encoder.json"
BATCHES_AT_ONCE = 16
FIX = "see `glimmer-export memory index --help`"


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
        options = {"embeddings": embeddings, "ids": ids, "an encoder": encoder}
        given = " and ".join(name for name, value in options.items() if value is not None)
        raise OptionError(
            "index", expected="embeddings, with ids or without, or an encoder", found=given or "neither",
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
            schema_version=DENSE_SCHEMA_VERSION, generation=manifest.generation, texts_sha256=manifest.texts_sha256,
            num_vectors=len(numbers), dimension=dimension, embeddings=FileEntry.of(work, work / EMBEDDINGS),
            numbers=FileEntry.of(work, work / NUMBERS), encoder=entry,
        )
        replace_file(work / MANIFEST, record_to_json(dense).encode())
    return DenseSummary(
        vectors=len(numbers), dimension=dimension, encoder=entry is not None,
        bytes=sum(file.bytes for file in dense.files()), seconds=time.monotonic() - started,
    )


@contextmanager
def _texts(store: Path, manifest: StoreManifest) -> Iterator[PassageTexts]:
    for segment in manifest.segments:
        with saying_what_mends(store, manifest, segment.texts.path):
            verify_file(store, segment.texts, error=StoreError, subject=f"store {store}", fix="")
    texts = PassageTexts(store, manifest.segments, read_tombstones(store, manifest))
    try:
        yield texts
    finally:
        texts.close()


def _encoder(source: Path, work: Path, threads: int | None) -> tuple[EncoderEntry, SentenceEncoder]:
    """A copy of the encoder below `work`, how the manifest names it, and the copy, loaded: what is kept, works."""
    settings, names = read_encoder(source)
    copy_encoder(source, work / ENCODER, names)
    *graph, tokenizer = (FileEntry.of(work, work / ENCODER / name) for name in names)
    try:
        loaded = SentenceEncoder(work / graph[0].path, work / tokenizer.path, settings, threads=threads)
    except StoreError as error:
        raise EmbeddingsError(f"encoder {source}", expected=error.expected, found=error.found, fix=error.fix) from None
    return EncoderEntry(tuple(graph), tokenizer, settings), loaded


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


def given_rows(embeddings: Path, ids: Path | None, texts: PassageTexts, numbers: Sequence[int]) -> Iterator[Array]:
    """Chunks (rows, dimension) float32, a row for each of `numbers` in their order.

    Raises EmbeddingsError: not a .npy file of floats, another number of rows, values that are not finite, ids that are
    not JSON, or that name a passage twice; PassageError for an id that the store does not hold.
    """
    matrix = _matrix(embeddings, len(numbers))
    order = np.arange(len(numbers)) if ids is None else _order(ids, texts, numbers)
    for start in range(0, len(order), AT_ONCE):
        rows = order[start : start + AT_ONCE]
        with np.errstate(over="ignore"):
            chunk = matrix[rows].astype(np.float32)
        if not (finite := np.isfinite(chunk).all(axis=1)).all():
            row = int(rows[int(np.argmin(finite))])
            raise EmbeddingsError(
                f"embeddings {embeddings}, row {row}", expected="finite values", found="NaN or infinity",
                fix="make the vectors again",
            )
        yield chunk


def _matrix(path: Path, num_passages: int) -> Array:
    def refused(reason: str) -> EmbeddingsError:
        return EmbeddingsError(
            f"embeddings {path}", expected="a .npy file", found=reason, fix="write it with numpy.save"
        )

    check_regular(path, error=EmbeddingsError, subject=f"embeddings {path}", fix="write it with numpy.save")
    matrix: Array = map_npy(path, refused)
    found = f"{matrix.dtype} {list(matrix.shape)}"
    if matrix.dtype not in (np.float32, np.float16):
        raise EmbeddingsError(
            f"embeddings {path}", expected="an array of float32 or float16", found=found,
            fix="convert it with array.astype(numpy.float32)",
        )
    if matrix.ndim != 2 or len(matrix) != num_passages or not matrix.shape[1]:
        raise EmbeddingsError(
            f"embeddings {path}", expected=f"shape [{num_passages}, dimension], a row a passage", found=found,
            fix="give a vector for each passage of the store, and for no other",
        )
    return matrix


def _order(path: Path, texts: PassageTexts, numbers: Sequence[int]) -> Array:
    """The row of each passage, by the ids of the rows."""
    named = texts.numbers(_ids(path))
    order = np.argsort(np.array(named, np.int64), kind="stable")
    if len(named) != len(numbers) or len(set(named)) != len(named):
        found = f"{len(named)} of {len(set(named))} passages"
        raise EmbeddingsError(
            f"ids {path}", expected=f"an id of each of {len(numbers)} passages, once", found=found,
            fix="name each passage of the store once, in the order of the vectors",
        )
    return order


def _ids(path: Path) -> list[int | str]:
    subject, expected = f"ids {path}", "an id in JSON a line, a string or an integer"
    fix = "write them with json.dumps, one a line"
    content = read_limited(
        path, limit_bytes=MAX_IDS_BYTES, error=EmbeddingsError, subject=subject, expected=expected, fix=fix
    )
    try:
        return [parse_json(line) for line in content.decode("utf-8-sig").split("\n") if line.strip()]
    except ValueError as reason:
        raise EmbeddingsError(subject, expected=expected, found=str(reason), fix=fix) from None


def read_encoder(directory: Path) -> tuple[EncoderSettings, list[str]]:
    """The settings, and the names of the files to keep: the graph, its external data, and last the tokenizer.

    Raises EmbeddingsError: a file is absent, settings are unknown or out of range, a graph is none.
    """
    subject = f"encoder {directory}"
    refuse_ours(
        [directory], expected="the directory of a sentence encoder", error=EmbeddingsError, subject="encoder", fix=FIX
    )
    data = read_json(directory / SETTINGS, error=EmbeddingsError, fix=FIX)
    settings = record_from_json(EncoderSettings, data, error=EmbeddingsError, subject=f"{subject}, {SETTINGS}", fix=FIX)
    if fault := settings.fault():
        raise EmbeddingsError(f"{subject}, {SETTINGS}", expected="settings of an encoder", found=fault, fix=FIX)
    for name in (MODEL, TOKENIZER):
        if not is_there(directory / name):
            raise EmbeddingsError(subject, expected=f"a file {name}", found="none", fix=FIX)
    names = [MODEL, *sorted(_external_data(directory / MODEL)), TOKENIZER]
    for name in names:
        path = inside(directory, name, error=EmbeddingsError, subject=subject)
        check_regular(
            path, error=EmbeddingsError, subject=subject, expected=f"a file {name}", fix="copy the encoder again"
        )
    return settings, names


def copy_encoder(source: Path, target: Path, names: Sequence[str]) -> None:
    """Copy these files of an encoder's directory."""
    for name in names:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, target / name)


def encoded_rows(
    encoder: SentenceEncoder, texts: PassageTexts, numbers: Sequence[int], batch_size: int
) -> Iterator[Array]:
    """Chunks (rows, dimension) float32, a row for each of `numbers` in their order.

    Passages of like length are encoded together. Raises EmbeddingsError where a vector is not finite.
    """
    at_once = batch_size * BATCHES_AT_ONCE
    for start in range(0, len(numbers), at_once):
        passages = texts.passages(numbers[start : start + at_once])
        order = sorted(range(len(passages)), key=lambda row: -len(passages[row].text))
        chunk = None
        for begin in range(0, len(order), batch_size):
            rows = order[begin : begin + batch_size]
            try:
                vectors = encoder.passages([(passages[row].title, passages[row].text) for row in rows])
            except StoreError as error:
                raise EmbeddingsError(
                    f"passages from {passages[rows[0]].id!r} on", expected=error.expected, found=error.found,
                    fix=error.fix,
                ) from None
            if chunk is None:
                chunk = np.empty((len(passages), vectors.shape[1]), np.float32)
            chunk[rows] = vectors
        assert chunk is not None
        yield chunk


def _external_data(path: Path) -> set[str]:
    """Names of the files that hold a graph's weights beside it."""
    subject = f"encoder {path}"
    content = map_regular(path, error=EmbeddingsError, subject=subject, fix=FIX)
    try:
        return {data.location.decode() for data in external_data(memoryview(content or b""))}
    except ValueError as reason:
        raise EmbeddingsError(subject, expected="an ONNX model", found=str(reason), fix=FIX) from None
