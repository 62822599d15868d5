"""Codes for a search among many vectors: a quantiser trained once on a sample, and the codes of each segment by it.

The codes are those of an inverted file with product quantisation (Jégou et al. 2011) behind a rotation (OPQ, Ge et al.
2013), trained and computed by faiss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from safetensors.numpy import save

from glimmer_export.exporter.files.whole_file import replace_file
from glimmer_export.exporter.memory.commit import Change
from glimmer_export.exporter.memory.kept_codes import KeptCodes
from glimmer_export.exporter.report.progress import progress_bar
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract import OptionError
from glimmer_export.runtime.contract.vector_layout import (
    CODES_HEADER_BYTES,
    CODEWORDS,
    QuantiserEntry,
    VectorSegmentEntry,
    VectorsEntry,
    vectors_name,
)
from glimmer_export.runtime.retrieval.dense import VectorSegment, vector_checksum
from glimmer_export.runtime.retrieval.hits import import_extra
from glimmer_export.runtime.retrieval.quantised import CodesFile, QuantisedLists, Quantiser

__all__ = [
    "AUTO", "EXACT", "IVFPQ", "MOST_FOR_EXACT", "SEARCHES", "choose_search", "coded_segment", "quantised_vectors",
    "search_warnings",
]  # fmt: skip

AUTO, EXACT, IVFPQ = "auto", "exact", "ivfpq"
SEARCHES = (AUTO, EXACT, IVFPQ)
MOST_FOR_EXACT = 100_000
"""Vectors up to which each is looked at: docs/measurements/vectors.md."""
NUM_PARTS, NUM_CANDIDATES = 48, 200
TRAINED_ON, MAX_TRAINED_ON, PER_LIST = 100_000, 400_000, 40
ROTATED_ON, PARTS_ON = 20_000, 30_000
"""Vectors that the rotation, and the codebooks, are fitted to at most."""
AT_ONCE = 1 << 15
TRAINED = ("lists", "rotation", "codewords")
QUERIES, BEST, WANTED = 200, 20, 0.995
"""Vectors that are asked for when the number of lists to look into is chosen, and the share of the best to be found."""


def quantised_vectors(
    change: Change, vectors: VectorsEntry, kept: KeptCodes, *, progress: bool = False
) -> VectorsEntry:
    """Train a quantiser on the vectors, whose new files are staged, and stage it and the codes of every segment.

    What was trained and coded is `kept`: a call that was stopped goes on behind it. Raises OptionError for fewer
    vectors than it can be trained on, StoreError for damaged ones, MissingExtraError without faiss, OutputError where
    nothing can be kept.
    """
    total = sum(segment.num_vectors for segment in vectors.segments)
    if total < CODEWORDS:
        raise OptionError(
            "--search ivfpq", expected=f"{CODEWORDS} vectors or more, to be trained on", found=str(total),
            fix=f"leave it to {AUTO}, which looks at each of up to {MOST_FOR_EXACT:,}",
        )
    stored = [file for part in vectors.segments for file in part.files()]
    change.check(*(file for file in stored if not (change.staged / file.path).exists()))
    num_lists, num_parts = _num_lists(total), min(NUM_PARTS, vectors.dimension)
    opened = [_open(change, vectors, segment) for segment in vectors.segments]
    sample = _sample(opened, min(total, max(TRAINED_ON, PER_LIST * num_lists)))
    name = vectors_name(change.generation, 0, "-quantiser.safetensors")
    width = -(-vectors.dimension // num_parts) * num_parts
    limit = 4 * width * (num_lists + CODEWORDS + width) + CODES_HEADER_BYTES
    decided_by = [segment.embeddings.sha256 for segment in vectors.segments]
    faiss = import_extra("faiss", "dense").__version__
    content = kept.content(
        ["quantiser", faiss, num_lists, num_parts, len(sample), *decided_by], limit,
        lambda: _trained(sample, num_lists, num_parts, progress=progress),
    )
    _stage(change, name, content)
    entry = QuantiserEntry(
        change.entry(name), width, num_lists, num_parts, num_lists, NUM_CANDIDATES, len(sample), 1.0
    )
    quantiser = Quantiser.open(change.staged, entry)
    with progress_bar("Coding vectors", total, unit="vectors", shown=progress) as advance:
        segments = tuple(
            coded_segment(change, replace(vectors, quantiser=entry), segment, quantiser, place, kept, advance)
            for place, segment in enumerate(vectors.segments)
        )
    lists = QuantisedLists(quantiser, entry, None)
    for segment, vectors_of in zip(segments, opened, strict=True):
        assert segment.codes is not None
        codes = CodesFile.open(change.staged, segment.codes, entry, segment.num_vectors)
        lists.add(codes, vectors_of.numbers_of(np.arange(segment.num_vectors)))
    return replace(vectors, segments=segments, quantiser=_with_probes(entry, lists, opened, sample[:QUERIES]))


def choose_search(choice: str, num_vectors: int) -> str:
    """How so many vectors are to be searched; raises OptionError for a choice that is none of SEARCHES."""
    if choice not in SEARCHES:
        raise OptionError("--search", expected=f"one of {', '.join(SEARCHES)}", found=choice, fix="choose one of these")
    if choice != AUTO:
        return choice
    return IVFPQ if num_vectors > MOST_FOR_EXACT else EXACT


def search_warnings(vectors: VectorsEntry | None) -> tuple[str, ...]:
    """A warning where a store has grown past what a search of each vector is for."""
    total = sum(segment.num_vectors for segment in vectors.segments) if vectors else 0
    if vectors is None or vectors.quantiser is not None or total <= MOST_FOR_EXACT:
        return ()
    said = (
        f"each of {total:,} vectors is looked at for a question, which is for {MOST_FOR_EXACT:,} at most; "
        "`glimmer-export memory index --search ivfpq` gives them codes to be searched by"
    )
    return (said,)


def coded_segment(
    change: Change, vectors: VectorsEntry, segment: VectorSegmentEntry, quantiser: Quantiser, place: int,
    kept: KeptCodes | None = None, advance: Callable[[int], None] = lambda _: None,
) -> VectorSegmentEntry:
    """Stage codes and checksums of one segment, the `place`-th of the change, and give it with them.

    `quantiser` is that of the `vectors`. The codes are `kept` where there is something to keep them; `advance` is told
    how many vectors were coded.
    """
    opened = _open(change, vectors, segment)
    assert vectors.quantiser is not None
    if kept is None:
        content = _coded(opened, segment.num_vectors, quantiser, advance)
    else:
        limit = segment.num_vectors * (vectors.quantiser.num_parts + 4) + 8 * (vectors.quantiser.num_lists + 1)
        content = kept.content(
            ["codes", vectors.quantiser.file.sha256, segment.embeddings.sha256], limit + CODES_HEADER_BYTES,
            lambda: _coded(opened, segment.num_vectors, quantiser, advance),
        )
    name = vectors_name(change.generation, place, "-codes.safetensors")
    _stage(change, name, content)
    checksums = vectors_name(change.generation, place, "-checksums.npy")
    with (change.staged / checksums).open("wb") as stream:
        found = (vector_checksum(vector) for vector in opened.embeddings)
        np.save(stream, np.fromiter(found, np.uint32, segment.num_vectors), allow_pickle=False)
    return replace(segment, codes=change.entry(name), checksums=change.entry(checksums))


def _coded(
    opened: VectorSegment, num_vectors: int, quantiser: Quantiser, advance: Callable[[int], None]
) -> bytes:
    """The content of a segment's file of codes."""
    index = quantiser.index()
    lists, codes = np.empty(num_vectors, np.int64), np.empty((num_vectors, index.pq.M), np.uint8)
    for start, chunk in _chunks(opened.embeddings):
        turned = quantiser.turned(chunk)
        found = index.quantizer.search(turned, 1)[1][:, 0]
        lists[start : start + len(chunk)] = found
        codes[start : start + len(chunk)] = index.pq.compute_codes(turned - quantiser.centroids[found])
        advance(len(chunk))
    rows = np.argsort(lists, kind="stable").astype(np.int32)
    offsets = np.searchsorted(lists[rows], np.arange(len(quantiser.centroids) + 1)).astype(np.int64)
    return save({"offsets": offsets, "rows": rows, "codes": codes[rows]})


def _num_lists(total: int) -> int:
    """Some twice the root of the vectors' number, a power of two, as far as there are vectors to train each on."""
    most = min(2 * total**0.5, total / PER_LIST, MAX_TRAINED_ON / PER_LIST)
    return 1 << max(0, round(np.log2(2 * total**0.5)) if most == 2 * total**0.5 else int(np.log2(most)))


def _stage(change: Change, name: str, content: bytes) -> None:
    (change.staged / name).parent.mkdir(exist_ok=True)
    replace_file(change.staged / name, content)


def _open(change: Change, vectors: VectorsEntry, segment: VectorSegmentEntry) -> VectorSegment:
    staged = (change.staged / segment.embeddings.path).exists()
    directory = change.staged if staged else change.store
    return VectorSegment.open(directory, vectors.dimension, segment, np.empty(0, np.int64))


def _chunks(embeddings: Array) -> Iterator[tuple[int, Array]]:
    for start in range(0, len(embeddings), AT_ONCE):
        yield start, np.asarray(embeddings[start : start + AT_ONCE], np.float32)


def _sample(segments: Sequence[VectorSegment], count: int) -> Array:
    """Rows (count, dimension) float32, drawn the same way each time."""
    ends = np.cumsum([len(segment.embeddings) for segment in segments])
    rows = np.sort(np.random.default_rng(0).choice(int(ends[-1]), count, replace=False))
    parts, first = [], 0
    for segment, end in zip(segments, ends.tolist(), strict=True):
        own = rows[slice(*rows.searchsorted([first, end]))] - first
        parts.append(np.asarray(segment.embeddings[own], np.float32))
        first = end
    return np.random.default_rng(1).permutation(np.concatenate(parts))


def _trained(sample: Array, num_lists: int, num_parts: int, *, progress: bool) -> bytes:
    """The content of a quantiser's file."""
    with progress_bar("Training codes", len(TRAINED), unit="steps", shown=progress) as advance:
        return _trained_in_steps(sample, num_lists, num_parts, lambda: advance(1))


def _trained_in_steps(sample: Array, num_lists: int, num_parts: int, done: Callable[[], None]) -> bytes:
    faiss: Any = import_extra("faiss", "dense")
    width = -(-sample.shape[1] // num_parts) * num_parts
    padded = np.ascontiguousarray(np.pad(sample, ((0, 0), (0, width - sample.shape[1]))))
    coarse = faiss.Kmeans(width, num_lists, niter=8, min_points_per_centroid=1, max_points_per_centroid=1 << 20)
    coarse.train(padded)
    done()
    nearest = faiss.IndexFlatIP(width)
    nearest.add(coarse.centroids)
    some = padded[: max(ROTATED_ON, PARTS_ON)]
    left = np.ascontiguousarray(some - coarse.centroids[nearest.search(some, 1)[1][:, 0]])
    matrix = faiss.OPQMatrix(width, num_parts)
    matrix.niter, matrix.niter_pq_0, matrix.niter_pq = 15, 8, 3
    own = faiss.ProductQuantizer(width, num_parts, 8)  # as its default one, which says on stderr that vectors are few
    own.cp.min_points_per_centroid = 1
    matrix.pq = own
    matrix.train(left[:ROTATED_ON])
    done()
    rotation = faiss.vector_to_array(matrix.A).reshape(width, width)
    codes = faiss.ProductQuantizer(width, num_parts, 8)
    codes.cp.niter, codes.cp.min_points_per_centroid = 8, 1
    codes.train(np.ascontiguousarray(left[:PARTS_ON] @ rotation.T))
    done()
    books = faiss.vector_to_array(codes.centroids).reshape(num_parts, CODEWORDS, width // num_parts)
    centroids = np.ascontiguousarray(coarse.centroids @ rotation.T)
    return save({"rotation": rotation, "centroids": centroids, "codebooks": np.ascontiguousarray(books)})


def _with_probes(
    entry: QuantiserEntry, lists: QuantisedLists, segments: Sequence[VectorSegment], queries: Array
) -> QuantiserEntry:
    """With the fewest lists, of powers of two, by which the best are found of vectors themselves."""
    best = _best(queries, segments)
    num_probes = 1
    while True:
        probed = min(num_probes, entry.num_lists)
        candidates = [next(lists.candidates(query, entry.num_candidates, probed)).tolist() for query in queries]
        found = [len({*own} & {*known}) / len(known) for own, known in zip(candidates, best, strict=True)]
        recall = float(np.mean(found))
        if recall >= WANTED or probed == entry.num_lists:
            return replace(entry, num_probes=probed, recall=round(recall, 4))
        num_probes *= 2


def _best(queries: Array, segments: Sequence[VectorSegment]) -> list[list[int]]:
    """Numbers of the greatest inner products of all."""
    faiss: Any = import_extra("faiss", "dense")
    scores: Array = np.empty((len(queries), 0), np.float32)
    numbers: Array = np.empty((len(queries), 0), np.int64)
    for segment in segments:
        for start, chunk in _chunks(segment.embeddings):
            own, rows = faiss.knn(queries, chunk, min(BEST, len(chunk)), metric=faiss.METRIC_INNER_PRODUCT)
            scores = np.concatenate([scores, own], axis=1)
            numbers = np.concatenate([numbers, segment.numbers_of(rows + start)], axis=1)
            order = np.argsort(-scores, axis=1)[:, :BEST]
            scores = np.take_along_axis(scores, order, axis=1)
            numbers = np.take_along_axis(numbers, order, axis=1)
    return [row.tolist() for row in numbers]
