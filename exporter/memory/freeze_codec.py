"""The codec of a build: fitted once to memory of the corpus itself, before the first shard, and frozen in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np

from glimmer_export.exporter.memory.corpus import Corpus
from glimmer_export.exporter.memory.encode import length_batches
from glimmer_export.exporter.memory.plan import BuildPlan
from glimmer_export.exporter.memory.work import Work
from glimmer_export.exporter.whole_file import replace_file
from glimmer_export.runtime.backends import Array, Graph
from glimmer_export.runtime.codec_file import read_codec
from glimmer_export.runtime.codecs import Codec, decode_fp16, encode_fp16, open_codec
from glimmer_export.runtime.contract import CODEC_ARRAYS, FileEntry, StoreError, codec_layout, file_digest
from glimmer_export.runtime.memory import encode_passages
from glimmer_export.runtime.text import TextEncoder

__all__ = ["codec_entry", "corpus_sample", "freeze_codec", "frozen_codec"]

AT_ONCE = 64
"""Passages of a sample that are encoded, in batches of like length, before they are given in their order."""


def freeze_codec(work: Work, name: str, d_model: int, fit: Callable[[], dict[str, Array]]) -> None:
    """Fit the codec of the store under construction, unless it has no arrays or an earlier run has fitted it.

    Raises what `fit` does.
    """
    from safetensors.numpy import save

    with suppress(StoreError):
        frozen_codec(work.store, name, d_model)
        return
    # Shards that were written with arrays that are gone cannot be read with others.
    work.forget_shards()
    replace_file(work.store / CODEC_ARRAYS, save(fit()))


def frozen_codec(store: Path, name: str, d_model: int) -> Codec:
    """The codec that a build's shards are written in; raises StoreError where its arrays are absent or damaged."""
    if codec_layout(name, d_model).arrays:
        return read_codec(store, codec_entry(store), name, d_model)
    return open_codec(name, d_model, {}, subject=f"store {store}")


def codec_entry(store: Path) -> FileEntry | None:
    """The file of a store's codec arrays; None where it has none."""
    path = store / CODEC_ARRAYS
    return FileEntry(CODEC_ARRAYS, path.stat().st_size, file_digest(path)) if path.is_file() else None


def corpus_sample(plan: BuildPlan, corpus: Corpus, text: TextEncoder, graph: Graph) -> Iterator[Array]:
    """Memory (tokens, d_model) float32 of passages in even steps through the whole corpus, in the corpus's order.

    It is what an fp16 store would hold, so that a conversion of that store is fitted to the same. Memory that is not
    finite is an error of the shard it belongs to, which says which passage it is.
    """
    chosen = plan.sample().fitted
    passages = (passage for number, passage in enumerate(corpus.passages()) if number in chosen)
    while group := list(islice(passages, AT_ONCE)):
        ids = [text.passage(passage.title, passage.text)[0] for passage in group]
        memories: dict[int, Array] = {}
        for rows in length_batches([len(row) for row in ids], plan.batch_tokens):
            memories.update(zip(rows, encode_passages(graph, [ids[row] for row in rows]), strict=True))
        yield from (_in_fp16(memories[row]) for row in range(len(group)))


def _in_fp16(memory: Array) -> Array:
    """k-means makes another codebook of another last bit, a little better or worse by chance."""
    return decode_fp16(*encode_fp16(memory)) if np.isfinite(memory).all() else memory
