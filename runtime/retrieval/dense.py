"""Exact search among vectors by faiss: the greatest inner products."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from glimmer_export.runtime.arguments import described
from glimmer_export.runtime.array_files import fault_of_rising, map_npy
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract import OptionError, StoreError, check_regular
from glimmer_export.runtime.contract.dense_layout import DenseManifest
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line
from glimmer_export.runtime.retrieval.encoder import SentenceEncoder
from glimmer_export.runtime.retrieval.hits import Hit, first_of_equals, import_extra, steady

__all__ = ["DenseIndex", "DenseRetriever"]

FIX = "make it again with `glimmer-export memory index`"


class DenseIndex:
    """Vectors of passages, mapped into memory. Safe from several threads; no copy of them is made."""

    def __init__(self, directory: Path, manifest: DenseManifest, *, num_numbers: int) -> None:
        """Map the vectors of `directory`, an index of a store that gave out passage numbers below `num_numbers`.

        Raises StoreError if they are not what the manifest says, MissingExtraError without faiss.
        """
        self._faiss: Any = import_extra("faiss", "dense")
        self.dimension = manifest.dimension
        self._subject = f"index {directory}"
        shape = (manifest.num_vectors, manifest.dimension)
        self._embeddings = _mapped(directory / manifest.embeddings.path, np.dtype(np.float32), shape)
        self._numbers = _mapped(directory / manifest.numbers.path, np.dtype(np.int64), shape[:1])
        if fault := fault_of_rising(self._numbers, least=0, most=num_numbers - 1):
            raise StoreError(
                self._subject, expected=f"passage numbers that rise below {num_numbers}", found=fault, fix=FIX
            )

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
        return first_of_equals(lambda limit, highest: self._hits(query[None], limit, highest), top_k)

    def _failed(self, raised: BaseException) -> StoreError:
        return StoreError(self._subject, expected="vectors that faiss can search", found=first_line(raised), fix=FIX)

    def _hits(self, query: Array, limit: int, highest: int | None) -> list[Hit]:
        embeddings = self._embeddings
        if highest is not None:
            embeddings = embeddings[: int(self._numbers.searchsorted(highest, side="right"))]
        limit = min(limit, len(embeddings))
        if not limit:
            return []
        with LibraryErrors(_is_faiss, self._failed):
            scores, rows = self._faiss.knn(query, embeddings, limit, metric=self._faiss.METRIC_INNER_PRODUCT)
        if int(rows.min()) < 0 or np.isnan(scores).any():
            raise StoreError(self._subject, expected="finite vectors", found="infinity or NaN", fix=FIX)
        numbers = self._numbers[rows[0]].tolist()
        return [Hit(number, steady(score)) for number, score in zip(numbers, scores[0].tolist(), strict=True)]


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
    array: Array = map_npy(path, refused)
    if array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        raise StoreError(
            f"index {path}", expected=f"{dtype} {list(shape)}", found=f"{array.dtype} {list(array.shape)}", fix=FIX
        )
    return array
