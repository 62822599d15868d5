"""Vectors of passages that were made elsewhere, brought into the order of passage numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract import EmbeddingsError, check_regular, read_limited
from glimmer_export.runtime.contract.json_text import parse_json
from glimmer_export.runtime.npy_file import map_npy
from glimmer_export.runtime.passage_texts import PassageTexts

__all__ = ["given_rows"]

AT_ONCE = 4096
MAX_IDS_BYTES = 1 << 30
"""Of a file with the ids of all passages: a Wikipedia's 21 million have 300 MB."""


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
