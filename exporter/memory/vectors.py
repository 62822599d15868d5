"""Give a store vectors of its passages: made elsewhere, or by a sentence encoder here.

    ENCODER/model.onnx        input_ids, attention_mask [, token_type_ids] -> last_hidden_state or sentence_embedding
    ENCODER/tokenizer.json    of the Hugging Face library tokenizers
    ENCODER/encoder.json      EncoderSettings
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.files.links import check_apart
from glimmer_export.exporter.memory.commit import Change, changing
from glimmer_export.exporter.memory.full_text import SEGMENT_PASSAGES
from glimmer_export.exporter.memory.kept_codes import KeptCodes, codes_folder
from glimmer_export.exporter.memory.kept_vectors import KeptVectors, VectorsPlan, kept_folder
from glimmer_export.exporter.memory.quantise import AUTO, EXACT, IVFPQ, choose_search, quantised_vectors
from glimmer_export.exporter.memory.vector_segments import NewVectors, added_vectors
from glimmer_export.exporter.memory.work import check_output
from glimmer_export.exporter.report.progress import progress_bar
from glimmer_export.runtime.array_files import map_npy
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract import (
    STORE_SCHEMA_VERSION,
    EmbeddingsError,
    OptionError,
    OutputError,
    StoreError,
    StoreManifest,
    check_regular,
    inside,
    is_there,
    map_regular,
    read_limited,
)
from glimmer_export.runtime.contract.dense_layout import adopted_vectors
from glimmer_export.runtime.contract.json_text import parse_json
from glimmer_export.runtime.contract.kinds import STORE, refuse_ours, require_kind
from glimmer_export.runtime.contract.records import read_json, record_from_json
from glimmer_export.runtime.contract.vector_layout import (
    EncoderEntry,
    EncoderSettings,
    VectorsEntry,
    encoder_name,
    is_vectors_path,
)
from glimmer_export.runtime.external_data import external_data
from glimmer_export.runtime.generation import read_tombstones
from glimmer_export.runtime.passage_texts import Passage, PassageTexts
from glimmer_export.runtime.retrieval.encoder import SentenceEncoder

__all__ = [
    "DenseSummary", "check_indexable", "copy_encoder", "encoded_rows", "given_rows", "index_store", "read_encoder",
]  # fmt: skip

AT_ONCE = 4096
MAX_IDS_BYTES = 1 << 30
"""Of a file with the ids of all passages: a Wikipedia's 21 million have 300 MB."""
MODEL, TOKENIZER, SETTINGS = "model.onnx", "tokenizer.json", "encoder.json"
BATCHES_AT_ONCE = 16
FIX = "see `glimmer-export memory index --help`"


@dataclass(frozen=True)
class DenseSummary:
    """What was made: `generation` of the store has `vectors`, of which `added` are new.

    `bytes` is the size of all files of vectors and of the encoder; `encoder`: questions can be encoded here too.
    `search` is `exact`, or `ivfpq`: then `probes` of `lists` are looked into, and `recall` is the quantiser's own.
    """

    generation: int
    vectors: int
    added: int
    dimension: int
    encoder: bool
    search: str
    lists: int | None
    probes: int | None
    recall: float | None
    bytes: int
    seconds: float


def index_store(
    store: str | Path, *, embeddings: str | Path | None = None, ids: str | Path | None = None,
    encoder: str | Path | None = None, search: str | None = None, overwrite: bool = False, batch_size: int = 32,
    threads: int | None = None, progress: bool = False,
) -> DenseSummary:
    """Give the passages of a store a vector each, from `embeddings` or by `encoder`, one of the two.

    A store that has vectors gets those that are lacking, by the same encoder; `overwrite` makes all of them anew.
    `embeddings` is a .npy file, (passages, dimension) float32 or float16, its rows by passage number, or in the order
    of `ids`, a file with a passage id in JSON a line. `encoder` is a directory with `model.onnx`, `tokenizer.json` and
    `encoder.json` (EncoderSettings); `batch_size` passages of like length are encoded in one run.

    `search` says how vectors are searched: `exact` looks at each, `ivfpq` at those that codes find, and `auto` is the
    one for so many; by default a store's own, else `auto`. Alone, it changes the search and no vector.

    What an encoder has made, and codes, are kept beside the store until all is there: the same call goes on behind it.

    Raises EmbeddingsError, PassageError (an id that the store does not hold), StoreError (a damaged store), OutputError
    (each passage has a vector, unfinished vectors of another call, another process changes the store, a full disk),
    BackendError without ONNX Runtime: the store is then as it was.
    """
    started, store = time.monotonic(), Path(store)
    alone = search is not None and embeddings is None and encoder is None and ids is None
    if (not alone and (embeddings is None) == (encoder is None)) or (ids is not None and embeddings is None):
        options = {"embeddings": embeddings, "ids": ids, "an encoder": encoder}
        given = " and ".join(name for name, value in options.items() if value is not None)
        raise OptionError(
            "index", expected="embeddings, with ids or without, or an encoder", found=given or "neither",
            fix="give one of the two",
        )
    require_kind(store, STORE, error=StoreError)
    inputs = [path for path in (embeddings, ids, encoder) if path is not None]
    check_output(store, inputs)
    for folder in (kept_folder(store), codes_folder(store)):
        check_apart(folder, inputs)
    with changing(store) as change:
        if not change.manifest.num_passages:
            raise StoreError(f"store {store}", expected="at least one passage", found="none", fix="append some to it")
        change.check_texts(change.manifest.texts)
        before = change.manifest.vectors if not overwrite or alone else None
        if alone and before is None:
            raise OptionError(
                "--search", expected="a store with vectors", found="none", fix="pass --encoder or --embeddings too"
            )
        gaps = [] if alone else check_indexable(
            change.store, change.manifest, overwrite=overwrite, switches=search is not None
        )
        own = None if before is None else EXACT if before.quantiser is None else IVFPQ
        wanted = own if search is None and own else choose_search(search or AUTO, change.manifest.num_passages)
        entry, loaded = None, None
        if encoder is not None:
            entry, loaded = _encoder(Path(encoder), change, threads, before)
        elif not alone and before is not None and before.encoder is not None:
            raise EmbeddingsError(
                f"store {store}", expected="the encoder that its vectors are by, for those that are lacking",
                found="given vectors", fix="pass --encoder, or --overwrite to replace all vectors",
            )
        lacking = [NewVectors(part, _live(part, change.tombstones), ()) for gap in gaps for part in _full(gap)]
        numbers = [number for new in lacking for number in new.numbers.tolist()]
        with change.texts() as texts:
            kept: KeptVectors | None = None
            chunks: Iterator[Array] = iter(())
            if embeddings is not None:
                chunks = given_rows(Path(embeddings), None if ids is None else Path(ids), texts, numbers)
            elif loaded is not None and entry is not None:
                chunks, kept = _kept_rows(store, entry, loaded, texts, numbers, batch_size)
            rows = _Rows(chunks, 0 if before is None else before.dimension)
            start = before or VectorsEntry(0, entry, ())
            if wanted != own:
                parts = tuple(replace(segment, codes=None, checksums=None) for segment in start.segments)
                start = replace(start, quantiser=None, segments=parts)
            with progress_bar("Writing vectors", len(numbers), shown=progress) as advance:
                vectors = added_vectors(
                    change, start, (replace(new, chunks=rows.take(len(new.numbers))) for new in lacking if
                                    len(new.numbers)), half=wanted == IVFPQ, advance=advance,
                )
        codes = KeptCodes(store)
        if wanted == IVFPQ and vectors.quantiser is None:
            vectors = quantised_vectors(change, vectors, codes, progress=progress)
        manifest = replace(
            change.manifest, schema_version=STORE_SCHEMA_VERSION, generation=change.generation, vectors=vectors
        )
        change.publish(manifest)
        if kept is not None:
            kept.remove()
        codes.remove()
    return DenseSummary(
        generation=manifest.generation, vectors=manifest.num_passages, added=len(numbers), dimension=vectors.dimension,
        encoder=vectors.encoder is not None, search=wanted,
        lists=vectors.quantiser.num_lists if vectors.quantiser else None,
        probes=vectors.quantiser.num_probes if vectors.quantiser else None,
        recall=vectors.quantiser.recall if vectors.quantiser else None,
        bytes=sum(file.bytes for file in vectors.files()),
        seconds=time.monotonic() - started,
    )


def check_indexable(
    store: Path, manifest: StoreManifest, *, overwrite: bool, switches: bool = False
) -> list[range]:
    """Ranges of numbers whose passages are to have a vector; raises OutputError where each passage has one.

    To `overwrite` means all of them; what `switches` the search need not find any.
    """
    numbers = range(manifest.num_numbers)
    vectors = adopted_vectors(store, manifest).vectors
    if overwrite or vectors is None:
        return [numbers]
    tombstones = read_tombstones(store, manifest)
    gaps = [gap for gap in vectors.gaps(len(numbers)) if len(_live(gap, tombstones))]
    if not gaps and not switches:
        raise OutputError(
            f"store {store}", expected="passages that have no vector", found="a vector of each",
            fix="pass --overwrite to replace them",
        )
    return gaps


def _full(gap: range) -> list[range]:
    """Ranges of as many numbers as a segment covers at most."""
    firsts = range(gap.start, gap.stop, SEGMENT_PASSAGES)
    return [range(first, min(first + SEGMENT_PASSAGES, gap.stop)) for first in firsts]


def _live(numbers: range, tombstones: NDArray[np.int64]) -> NDArray[np.int64]:
    dead = tombstones[slice(*tombstones.searchsorted([numbers.start, numbers.stop]))]
    return np.setdiff1d(np.arange(numbers.start, numbers.stop), dead, assume_unique=True)


def _kept_rows(
    store: Path, entry: EncoderEntry, encoder: SentenceEncoder, texts: PassageTexts, numbers: Sequence[int],
    batch_size: int,
) -> tuple[Iterator[Array], KeptVectors]:
    """Chunks (rows, dimension) float32 of `numbers` by an encoder, and what keeps them until the store has them."""
    kept = KeptVectors(store, VectorsPlan(tuple(file.sha256 for file in entry.files()), entry.settings, batch_size))
    encode = partial(encoded_rows, encoder, batch_size=batch_size)
    return kept.rows(numbers, texts.passages, encode, batch_size * BATCHES_AT_ONCE), kept


class _Rows:
    """Rows of chunks, taken so many at a time; raises EmbeddingsError for another dimension than the store's."""

    def __init__(self, chunks: Iterator[Array], dimension: int) -> None:
        self._chunks, self._dimension, self._left = chunks, dimension, np.empty((0, 0), np.float32)

    def take(self, count: int) -> Iterator[Array]:
        """Chunks of the next `count` rows."""
        while count:
            if not len(self._left):
                self._left = next(self._chunks)
                self._dimension = self._dimension or self._left.shape[1]
                if self._left.shape[1] != self._dimension:
                    raise EmbeddingsError(
                        "vectors", expected=f"{self._dimension} dimensions, as the store's have",
                        found=str(self._left.shape[1]), fix="pass --overwrite to replace the store's vectors",
                    )
            taken, self._left = self._left[:count], self._left[count:]
            count -= len(taken)
            yield taken


def _encoder(
    source: Path, change: Change, threads: int | None, before: VectorsEntry | None
) -> tuple[EncoderEntry, SentenceEncoder]:
    """A staged copy of the encoder, how the manifest names it, and the copy, loaded: what is kept, works.

    Raises EmbeddingsError where vectors `before` are not by this encoder; if they are, nothing is staged.
    """
    settings, names = read_encoder(source)
    folder = encoder_name(change.generation)
    for name in names:
        if not is_vectors_path(f"{folder}/{name}"):
            raise EmbeddingsError(
                f"encoder {source}", expected="names of letters, digits, `-`, `_` and `.`", found=name,
                fix="save the graph's weights under another name",
            )
    copy_encoder(source, change.staged / folder, names)
    *graph, tokenizer = (change.entry(f"{folder}/{name}") for name in names)
    entry = EncoderEntry(tuple(graph), tokenizer, settings)
    if before is not None and (before.encoder is None or not before.encoder.is_same(entry)):
        raise EmbeddingsError(
            f"encoder {source}", expected="the encoder that the store's vectors are by, for those that are lacking",
            found=f"a graph of digest {entry.graph[0].sha256[:12]}" if before.encoder else "given vectors",
            fix="pass --overwrite to replace all vectors",
        )
    try:
        loaded = SentenceEncoder(
            change.staged / graph[0].path, change.staged / tokenizer.path, settings, threads=threads
        )
    except StoreError as error:
        raise EmbeddingsError(f"encoder {source}", expected=error.expected, found=error.found, fix=error.fix) from None
    if before is not None:
        shutil.rmtree(change.staged / folder)
    return entry, loaded


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
    if len(named) != len(numbers) or set(named) != set(numbers):
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
    encoder: SentenceEncoder, parts: Iterable[Sequence[Passage]], batch_size: int
) -> Iterator[Array]:
    """Chunks (rows, dimension) float32, one for each part, a row for each of its passages.

    Passages of like length are encoded together. Raises EmbeddingsError where a vector is not finite.
    """
    for passages in parts:
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
