"""The codebook of a product quantisation, by faiss: k-means of each group of channels, stage after stage."""

from __future__ import annotations

import numpy as np

from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.codecs.product import nearest
from glimmer_export.runtime.contract import MissingExtraError

__all__ = ["fit_codebook"]

ITERATIONS = 10
SEED = 1


def fit_codebook(rows: Array, shape: tuple[int, ...]) -> Array:
    """Rows (n, groups * width) float32 -> codebook of `shape` (stages, groups, centroids, width) float32.

    Each stage is fitted to what is left of the rows when those before it are taken away, as a codec encodes. Raises
    MissingExtraError where faiss is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise MissingExtraError(
            "fitting a product quantisation", expected="faiss", found="none",
            fix='install its extra: pip install "glimmer-export[dense]"; or choose another codec',
        ) from None
    stages, groups, centroids, width = shape
    codebook = np.empty(shape, np.float32)
    threads = faiss.omp_get_max_threads()
    # Sums in several threads are added in an order that differs from run to run.
    faiss.omp_set_num_threads(1)
    try:
        for group in range(groups):
            left = np.ascontiguousarray(rows[:, group * width : (group + 1) * width])
            for stage in range(stages):
                codebook[stage, group] = _centroids(left, centroids)
                left = left - codebook[stage, group, nearest(left, codebook[stage, group])]
    finally:
        faiss.omp_set_num_threads(threads)
    return codebook


def _centroids(rows: Array, count: int) -> Array:
    """`count` centroids of rows (n, width). If there are no more rows than that, they are the rows and zeros."""
    import faiss

    if len(rows) <= count:
        return np.concatenate([rows, np.zeros((count - len(rows), rows.shape[1]), np.float32)])
    kmeans = faiss.Kmeans(
        rows.shape[1], count, niter=ITERATIONS, seed=SEED, min_points_per_centroid=1, max_points_per_centroid=len(rows)
    )
    kmeans.train(rows)
    return np.array(kmeans.centroids, np.float32)
