"""Search among vectors by faiss: the greatest inner products, of all of them or of those that codes find."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.arguments import described
from glimmer_export.runtime.array_files import fault_of_rising, map_npy
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract import OptionError, StoreError, check_regular
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line
from glimmer_export.runtime.contract.vector_layout import QuantiserEntry, VectorSegmentEntry, VectorsEntry
from glimmer_export.runtime.retrieval.encoder import SentenceEncoder
from glimmer_export.runtime.retrieval.hits import Hit, first_of_equals, import_extra, steady
from glimmer_export.runtime.retrieval.quantised import CodesFile, QuantisedLists, Quantiser

__all__ = ["DenseIndex", "DenseRetriever", "VectorSegment", "vector_checksum"]

FIX = "make it again with `glimmer-export memory index`"
HALF_AT_ONCE = 4096
"""Vectors of float16 that are looked at together, as the float32 that they are made into: no copy of all of them."""
FEWEST = 64
"""Rows asked of a segment at least, where some of what it finds may be deleted."""


@dataclass(frozen=True)
class VectorSegment:
    """The vectors of one segment, mapped: (vectors, dimension), and whose they are.

    `numbers` (vectors,) int64 rise; None where they are `first` and those that follow. `num_live` passages of them are
    not deleted. `checksums` (vectors,) uint32, None where there are none, are mapped like the vectors.
    """

    first: int
    end: int
    embeddings: Array
    numbers: Array | None
    num_live: int
    checksums: Array | None = None

    @classmethod
    def open(
        cls, directory: Path, dimension: int, entry: VectorSegmentEntry, dead: NDArray[np.int64]
    ) -> VectorSegment:
        """Map a segment of the store `directory`, of whose passages the numbers `dead`, which rise, are deleted.

        Raises StoreError if the files are not what the manifest says.
        """
        rows = entry.num_vectors
        embeddings = _mapped(directory / entry.embeddings.path, np.dtype(entry.dtype), (rows, dimension))
        checksums = None
        if entry.checksums is not None:
            checksums = _mapped(directory / entry.checksums.path, np.dtype(np.uint32), (rows,))
        gone = dead[slice(*dead.searchsorted([entry.first, entry.end]))]
        if entry.numbers is None:
            return cls(entry.first, entry.end, embeddings, None, rows - len(gone), checksums)
        path = directory / entry.numbers.path
        numbers = _mapped(path, np.dtype(np.int64), (rows,))
        if fault := fault_of_rising(numbers, least=entry.first, most=entry.end - 1):
            raise StoreError(
                f"index {path}", expected=f"passage numbers that rise from {entry.first} to below {entry.end}",
                found=fault, fix=FIX,
            )
        num_live = rows - int(np.isin(gone, numbers, assume_unique=True).sum())
        return cls(entry.first, entry.end, embeddings, numbers, num_live, checksums)

    def count(self, highest: int | None) -> int:
        """How many of its rows are of passages up to the number `highest`; None for all."""
        rows = len(self.embeddings)
        if highest is None:
            return rows
        if self.numbers is None:
            return min(max(highest + 1 - self.first, 0), rows)
        return int(self.numbers.searchsorted(highest, side="right"))

    def numbers_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The passage numbers of these rows."""
        return rows + self.first if self.numbers is None else self.numbers[rows]

    def rows_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The rows of passages that it has vectors of."""
        return numbers - self.first if self.numbers is None else self.numbers.searchsorted(numbers)


def vector_checksum(vector: Array) -> int:
    """The CRC-32 (zlib) of a vector (dimension,), as it lies in its file."""
    return zlib.crc32(vector.data)


class DenseIndex:
    """Vectors of passages, mapped into memory. Safe from several threads; no copy of them is made."""

    def __init__(
        self, directory: Path, vectors: VectorsEntry, dead: NDArray[np.int64], *, verify: bool = True
    ) -> None:
        """Map the vectors of the store `directory`; passages of the numbers `dead` (n,), which rise, are not found.

        `verify`: a vector that is found by its code is checked, where it has a checksum. Raises StoreError if they are
        not what the manifest says, MissingExtraError without faiss.
        """
        self._faiss: Any = import_extra("faiss", "dense")
        self.dimension = vectors.dimension
        self._subject = f"index of vectors of {directory}"
        self._dead, self._verify = dead, verify
        self._segments = [VectorSegment.open(directory, self.dimension, entry, dead) for entry in vectors.segments]
        self._lists: QuantisedLists | None = None
        if vectors.quantiser is not None:
            self._lists = self._quantised(directory, vectors, vectors.quantiser)

    @property
    def num_live(self) -> int:
        """How many passages that are not deleted have a vector."""
        return sum(segment.num_live for segment in self._segments)

    def search(self, embedding: Array, top_k: int) -> list[Hit]:
        """The `top_k` passages whose vectors have the greatest inner product with `embedding` (dimension,) float32.

        A tie goes to the lower number. Raises OptionError for a vector of another dimension, or one that is not finite.
        """
        query = _vector(embedding)
        if query.shape != (self.dimension,) or not np.isfinite(query).all():
            raise OptionError(
                "embedding", expected=f"a finite vector of {self.dimension} numbers", found=f"shape {query.shape}",
                fix="encode the question as the passages were",
            )
        if self._lists is not None:
            return self._best_of_codes(self._lists, query, top_k)
        return first_of_equals(lambda limit, highest: self._hits(query[None], limit, highest), top_k)

    def _quantised(self, directory: Path, vectors: VectorsEntry, entry: QuantiserEntry) -> QuantisedLists:
        end = max((segment.end for segment in vectors.segments), default=0)
        live = None
        if dead := self._dead[: self._dead.searchsorted(end)].tolist():
            live = np.ones(end, np.bool_)
            live[dead] = False
        lists = QuantisedLists(Quantiser.open(directory, entry), entry, live)
        self._most_candidates = entry.num_candidates
        for segment, opened in zip(vectors.segments, self._segments, strict=True):
            assert segment.codes is not None  # by the manifest's rules
            codes = CodesFile.open(directory, segment.codes, entry, segment.num_vectors)
            with LibraryErrors(_is_faiss, self._failed):
                lists.add(codes, opened.numbers_of(np.arange(segment.num_vectors)))
        return lists

    def _best_of_codes(self, lists: QuantisedLists, query: Array, top_k: int) -> list[Hit]:
        """The best of some hundred candidates, scored exactly; of more lists where there are fewer than are wanted."""
        wanted = min(top_k, self.num_live)
        if wanted < 1:
            return []
        hits: list[Hit] = []
        with LibraryErrors(_is_faiss, self._failed):
            for numbers in lists.candidates(query, max(self._most_candidates, 2 * wanted)):
                if len(numbers) >= wanted:
                    hits = self._scored(query, np.sort(numbers))
                    break
        return sorted(hits, key=lambda hit: (-hit.score, hit.number))[:top_k]

    def _scored(self, query: Array, numbers: NDArray[np.int64]) -> list[Hit]:
        """Exact scores of passages, by numbers that rise."""
        hits: list[Hit] = []
        for segment in self._segments:
            part = numbers[slice(*numbers.searchsorted([segment.first, segment.end]))]
            if len(part):
                rows = segment.rows_of(part)
                read = segment.embeddings[rows]
                if self._verify and segment.checksums is not None:
                    self._check(part, read, segment.checksums[rows])
                scores = np.asarray(read, np.float32) @ query
                if not np.isfinite(scores).all():
                    raise StoreError(self._subject, expected="finite vectors", found="infinity or NaN", fix=FIX)
                found = zip(part.tolist(), scores.tolist(), strict=True)
                hits += [Hit(number, steady(score)) for number, score in found]
        return hits

    def _check(self, numbers: NDArray[np.int64], vectors: Array, checksums: Array) -> None:
        for number, vector, checksum in zip(numbers.tolist(), vectors, checksums.tolist(), strict=True):
            if vector_checksum(vector) != checksum:
                raise StoreError(
                    f"{self._subject}, passage number {number}", expected="the vector that was written",
                    found="a checksum that does not fit", fix=FIX,
                )

    def _failed(self, raised: BaseException) -> StoreError:
        return StoreError(self._subject, expected="vectors that faiss can search", found=first_line(raised), fix=FIX)

    def _hits(self, query: Array, limit: int, highest: int | None) -> list[Hit]:
        hits = [hit for segment in self._segments for hit in self._hits_in(segment, query, limit, highest)]
        return sorted(hits, key=lambda hit: (-hit.score, hit.number))[:limit]

    def _hits_in(self, segment: VectorSegment, query: Array, limit: int, highest: int | None) -> list[Hit]:
        """The best of one segment; more are looked for as long as there are too few that are not deleted."""
        count = segment.count(highest)
        asked = limit if segment.num_live == len(segment.embeddings) else max(limit + limit // 4, FEWEST)
        while True:
            asked = min(asked, count)
            if not asked:
                return []
            scores, rows = self._nearest(query, segment.embeddings[:count], asked)
            numbers = segment.numbers_of(rows)
            live = ~_among(self._dead, numbers)
            if asked == count or np.count_nonzero(live) >= limit:
                found = zip(numbers[live].tolist(), scores[live].tolist(), strict=True)
                return [Hit(number, steady(score)) for number, score in found][:limit]
            asked *= 4

    def _nearest(self, query: Array, embeddings: Array, limit: int) -> tuple[Array, NDArray[np.int64]]:
        """Scores (limit,) float32 and rows of the greatest inner products."""
        at_once = len(embeddings) if embeddings.dtype == np.float32 else HALF_AT_ONCE
        parts = []
        for start in range(0, len(embeddings), at_once):
            part = np.asarray(embeddings[start : start + at_once], np.float32)
            with LibraryErrors(_is_faiss, self._failed):
                scores, rows = self._faiss.knn(
                    query, part, min(limit, len(part)), metric=self._faiss.METRIC_INNER_PRODUCT
                )
            if int(rows.min()) < 0 or np.isnan(scores).any():
                raise StoreError(self._subject, expected="finite vectors", found="infinity or NaN", fix=FIX)
            parts.append((scores[0], rows[0] + start))
        scores, rows = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        order = np.argsort(-scores, kind="stable")[:limit]
        return scores[order], rows[order]


def _among(rising: NDArray[np.int64], numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which of `numbers` are among those that rise."""
    if not len(rising):
        return np.zeros(numbers.shape, np.bool_)
    places = np.minimum(rising.searchsorted(numbers), len(rising) - 1)
    return np.asarray(rising[places] == numbers)


def _is_faiss(kind: type[BaseException]) -> bool:
    """What faiss throws comes as RuntimeError, and what it has no memory for as MemoryError."""
    return kind in (RuntimeError, MemoryError)


def _vector(embedding: object) -> Array:
    """Real numbers as float32, of any shape; raises OptionError for what has none."""
    try:
        found = np.asarray(embedding)
        if found.dtype.kind in "fiu":
            return np.ascontiguousarray(found, np.float32)
    except (TypeError, ValueError):  # a list of lists of several lengths, or no numbers
        pass
    raise OptionError(
        "embedding", expected="a vector of real numbers", found=described(embedding),
        fix="encode the question as the passages were",
    )


class DenseRetriever:
    """Encodes a question and looks its vector up."""

    def __init__(self, index: DenseIndex, encoder: SentenceEncoder) -> None:
        self._index, self._encoder = index, encoder

    def search(self, question: str, top_k: int) -> list[Hit]:
        """The `top_k` passages whose vectors fit the question's best; none for a question without text."""
        if not question.strip():
            return []
        return self._index.search(self._encoder.question(question), top_k)


def _mapped(path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    def refused(reason: str) -> StoreError:
        return StoreError(f"index {path}", expected="an array that numpy wrote", found=reason, fix=FIX)

    check_regular(path, error=StoreError, subject=f"index {path}", fix=FIX)
    array: Array = np.asarray(map_npy(path, refused))
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise StoreError(
            f"index {path}", expected=f"{dtype} {list(shape)}", found=f"{array.dtype} {list(array.shape)}", fix=FIX
        )
    return array
