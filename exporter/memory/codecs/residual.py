"""A residual quantisation's arrays: the store's scale, and the codebook of tokens of length 1."""

from __future__ import annotations

import numpy as np

from glimmer_export.exporter.memory.codecs.product import fit_codebook
from glimmer_export.runtime.codecs import Array, CodecLayout
from glimmer_export.runtime.codecs.residual import GAINS, gain_codes

__all__ = ["fit"]


def fit(layout: CodecLayout, rows: Array) -> dict[str, Array]:
    """As `CodecFit`: a scale that brings the sample's median length to 1, and the codebook of tokens by their gains.

    Raises MissingExtraError if faiss is not installed.
    """
    shape = next(array.shape for array in layout.arrays if array.name == "memory_codebook")
    some = rows[np.abs(rows).max(-1, initial=0) > 0]
    lengths = np.sqrt(np.square(some, dtype=np.float64).sum(-1))
    exponent = round(float(np.log2(np.median(lengths)))) if len(lengths) else 0
    scale = np.array([2.0 ** min(max(exponent, -126), 126)], np.float32)
    scaled = some / scale
    return {"memory_scale": scale, "memory_codebook": fit_codebook(scaled / GAINS[gain_codes(scaled)][:, None], shape)}
