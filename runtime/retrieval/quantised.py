"""Search among many vectors by an inverted file of product codes (IVF-PQ, by faiss), its best re-scored exactly.

Each vector is in the list of the centroid that it fits best, as codes of what is left of it: 8 bits for each of some 48
parts. A question looks into the lists of the centroids that fit it best. Codes and passage numbers are in memory, the
vectors are not: those of the best are read where they lie.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.array_files import read_arrays
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract import FileEntry, StoreError, read_limited
from glimmer_export.runtime.contract.vector_layout import CODEWORDS, QuantiserEntry
from glimmer_export.runtime.retrieval.hits import import_extra

__all__ = ["CodesFile", "QuantisedLists", "Quantiser"]

FIX = "make it again with `glimmer-export memory index`"
BITS = 8


@dataclass(frozen=True)
class Quantiser:
    """`centroids` (lists, width), `codebooks` (parts, 256, width / parts) and `rotation` (width, width), float32.

    A vector, zeros behind its dimension up to the width, is multiplied by the rotation first (Ge et al. 2013, OPQ).
    """

    rotation: Array
    centroids: Array
    codebooks: Array

    @classmethod
    def open(cls, directory: Path, entry: QuantiserEntry) -> Quantiser:
        """Read a quantiser of the store `directory`; raises StoreError if it is not what the manifest says."""
        arrays = _arrays(directory, entry.file, {
            "rotation": ("float32", (entry.width, entry.width)),
            "centroids": ("float32", (entry.num_lists, entry.width)),
            "codebooks": ("float32", (entry.num_parts, CODEWORDS, entry.width // entry.num_parts)),
        })
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                raise StoreError(
                    f"index {directory / entry.file.path}, {name}", expected="finite values", found="infinity or NaN",
                    fix=FIX,
                )
        return cls(arrays["rotation"], arrays["centroids"], arrays["codebooks"])

    def turned(self, vectors: Array) -> Array:
        """Vectors (n, dimension) as they are coded: (n, width) float32, of the same inner products."""
        dimension = vectors.shape[1]
        return np.ascontiguousarray(vectors.astype(np.float32) @ self.rotation[:, :dimension].T)

    def index(self) -> Any:
        """An empty IndexIVFPQ of faiss, trained; raises MissingExtraError without it."""
        faiss = import_extra("faiss", "dense")
        lists, width = self.centroids.shape
        coarse = faiss.IndexFlatIP(width)
        coarse.add(np.ascontiguousarray(self.centroids))
        index = faiss.IndexIVFPQ(coarse, width, lists, len(self.codebooks), BITS, faiss.METRIC_INNER_PRODUCT)
        faiss.copy_array_to_vector(np.ascontiguousarray(self.codebooks, np.float32).ravel(), index.pq.centroids)
        index.is_trained = True
        return index


@dataclass(frozen=True)
class CodesFile:
    """The codes of one segment: `rows` (vectors,) int32 of its vectors by list, list l from `offsets[l]` on.

    `offsets` (lists + 1,) int64, `codes` (vectors, parts) uint8.
    """

    offsets: Array
    rows: Array
    codes: Array

    @classmethod
    def open(cls, directory: Path, file: FileEntry, entry: QuantiserEntry, num_vectors: int) -> CodesFile:
        """Read a segment's codes; raises StoreError if they are not those of each vector once."""
        arrays = _arrays(directory, file, {
            "offsets": ("int64", (entry.num_lists + 1,)), "rows": ("int32", (num_vectors,)),
            "codes": ("uint8", (num_vectors, entry.num_parts)),
        })
        offsets, rows = arrays["offsets"], arrays["rows"]
        seen = np.zeros(num_vectors, np.bool_)
        in_range = not num_vectors or (rows.min() >= 0 and rows.max() < num_vectors)
        if in_range:
            seen[rows] = True
        if not (in_range and seen.all()) or offsets[0] or offsets[-1] != num_vectors or (np.diff(offsets) < 0).any():
            raise StoreError(
                f"index {directory / file.path}", expected=f"each of {num_vectors} vectors in one list",
                found="other lists", fix=FIX,
            )
        return cls(offsets, rows, arrays["codes"])


class QuantisedLists:
    """The codes of all segments in memory. Safe from several threads."""

    def __init__(self, quantiser: Quantiser, entry: QuantiserEntry, live: NDArray[np.bool_] | None) -> None:
        """`live` (numbers,) says which passages are there; None: all."""
        self._faiss: Any = import_extra("faiss", "dense")
        self._quantiser, self._entry = quantiser, entry
        self._index = quantiser.index()
        self._live_bits = None if live is None else np.packbits(live, bitorder="little")

    def add(self, codes: CodesFile, numbers: NDArray[np.int64]) -> None:
        """Take in one segment, whose rows are of the passages `numbers`."""
        by_list = np.ascontiguousarray(numbers[codes.rows], np.int64)
        lists, swig = self._index.invlists, self._faiss.swig_ptr
        for place in np.flatnonzero(np.diff(codes.offsets)).tolist():
            part = slice(int(codes.offsets[place]), int(codes.offsets[place + 1]))
            lists.add_entries(place, part.stop - part.start, swig(by_list[part]), swig(codes.codes[part]))
        self._index.ntotal += len(by_list)

    def candidates(
        self, query: Array, count: int, num_probes: int | None = None
    ) -> Iterator[NDArray[np.int64]]:
        """Numbers of at most `count` passages that are there, by codes, of ever more lists; `query` is (dimension,).

        The first are of `num_probes` lists, by default as many as the manifest says.
        """
        turned = self._quantiser.turned(query[None])
        num_probes = min(num_probes or self._entry.num_probes, self._entry.num_lists)
        while True:
            selector = None
            if self._live_bits is not None:
                selector = self._faiss.IDSelectorBitmap(self._live_bits)
            parameters = self._faiss.SearchParametersIVF(nprobe=num_probes, sel=selector)
            found = self._index.search(turned, count, params=parameters)[1][0]
            yield found[found >= 0]
            if num_probes == self._entry.num_lists:
                return
            num_probes = min(num_probes * 4, self._entry.num_lists)


def _arrays(directory: Path, file: FileEntry, expected: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, Array]:
    """The arrays of a safetensors file; raises StoreError for others than are expected."""
    subject = f"index {directory / file.path}"

    def refused(reason: str) -> StoreError:
        return StoreError(subject, expected="a safetensors file", found=reason, fix=FIX)

    content = read_limited(directory / file.path, limit_bytes=file.bytes, error=StoreError, subject=subject, fix=FIX)
    arrays = read_arrays(content, refused)  # no larger than the manifest says, which was compared with its counts
    found = {name: (str(array.dtype), array.shape) for name, array in arrays.items()}
    if found != expected:
        raise StoreError(subject, expected=str(expected), found=str(found)[:200], fix=FIX)
    return arrays
