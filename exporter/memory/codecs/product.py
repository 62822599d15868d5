"""A product quantisation's arrays: by faiss, k-means of each group of channels, stage after stage."""

from __future__ import annotations

import numpy as np

from glimmer_export.runtime.codecs import Array, CodecLayout
from glimmer_export.runtime.codecs.product import nearest
from glimmer_export.runtime.contract import MissingExtraError

__all__ = ["fit", "fit_codebook"]

ITERATIONS = 10
SEED = 1


def fit(layout: CodecLayout, rows: Array) -> dict[str, Array]:
    """As `CodecFit`: a scale that brings the sample's largest value between 1/2 and 1, and the codebook of the rest.

    Raises MissingExtraError if faiss is not installed.
    """
    shape = next(array.shape for array in layout.arrays if array.name == "memory_codebook")
    peak = float(np.abs(rows).max(initial=0))
    exponent = 0 if peak == 0 else int(np.frexp(peak)[1])
    scale = np.array([2.0 ** min(max(exponent, -126), 126)], np.float32)
    return {"memory_scale": scale, "memory_codebook": fit_codebook(rows / scale, shape)}


def fit_codebook(rows: Array, shape: tuple[int, ...]) -> Array:
    """Rows (n, groups * width) float32 -> codebook of `shape` (stages, groups, centroids, width) float32.

    Each stage is fitted to what is left of the rows when those before it are taken away, as a codec encodes.
    Raises MissingExtraError if faiss is not installed.
    """
    stages, groups, centroids, width = shape
    codebook = np.empty(shape, np.float32)
    for group in range(groups):
        left = np.ascontiguousarray(rows[:, group * width : (group + 1) * width])
        for stage in range(stages):
            codebook[stage, group] = _centroids(left, centroids)
            left = left - codebook[stage, group, nearest(left, codebook[stage, group])]
    return codebook


def _centroids(rows: Array, count: int) -> Array:
    """`count` centroids of rows (n, width): the rows and zeros if there are no more rows than that, else by faiss."""
    if len(rows) <= count:
        return np.concatenate([rows, np.zeros((count - len(rows), rows.shape[1]), np.float32)])
    try:
        import faiss
    except ImportError:
        raise MissingExtraError(
            "fitting a product quantisation", expected="faiss", found="none",
            fix='install its extra: pip install "glimmer-export[dense]"; or choose another codec',
        ) from None
    kmeans = faiss.Kmeans(
        rows.shape[1], count, niter=ITERATIONS, seed=SEED, min_points_per_centroid=1, max_points_per_centroid=len(rows)
    )
    threads = faiss.omp_get_max_threads()
    # Sums in several threads are added in an order that differs from run to run.
    faiss.omp_set_num_threads(1)
    try:
        kmeans.train(rows)
    finally:
        faiss.omp_set_num_threads(threads)
    return np.array(kmeans.centroids, np.float32)
