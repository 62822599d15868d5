"""The codec of a build: fitted once to memory of the corpus itself, before the first shard, and frozen in the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path

from exporter.memory.corpus import Corpus
from exporter.memory.encode import length_batches
from exporter.memory.fit_codec import fit_codec
from exporter.memory.plan import BuildPlan
from exporter.memory.work import Work
from exporter.publish import replace_file
from runtime.backends import Array, Graph
from runtime.codec_file import read_codec
from runtime.codecs import Codec, open_codec
from runtime.contract import CODEC_ARRAYS, FileEntry, StoreError, codec_layout, file_digest
from runtime.memory import encode_passages
from runtime.text import TextEncoder

__all__ = ["SAMPLE_PASSAGES", "codec_entry", "freeze_codec", "frozen_codec"]

SAMPLE_PASSAGES = 1024
"""Passages that a codec is fitted to, in even steps through the corpus."""


def freeze_codec(work: Work, plan: BuildPlan, corpus: Corpus, text: TextEncoder, graph: Graph) -> Codec:
    """The codec of the store under construction; one that an earlier run had fitted is taken as it is.

    Raises StoreError where the sample's memory is not finite, MissingExtraError for a codec whose fitting needs more.
    """
    name, d_model = plan.codec, plan.d_model
    assert name is not None
    return frozen_codec(work, name, d_model, lambda: fit_codec(name, d_model, _sample(plan, corpus, text, graph)))


def frozen_codec(work: Work, name: str, d_model: int, fit: Callable[[], dict[str, Array]]) -> Codec:
    """The codec of the store under construction; `fit` is called where its arrays are not there yet."""
    from safetensors.numpy import save

    subject = f"store {work.store}"
    if not codec_layout(name, d_model).arrays:
        return open_codec(name, d_model, {}, subject=subject)
    with suppress(StoreError):
        return read_codec(work.store, codec_entry(work.store), name, d_model)
    # Shards that were written with arrays that are gone cannot be read with others.
    work.forget_shards()
    arrays = fit()
    replace_file(work.store / CODEC_ARRAYS, save(arrays))
    return open_codec(name, d_model, arrays, subject=subject)


def codec_entry(store: Path) -> FileEntry | None:
    """The file of a store's codec arrays; None where it has none."""
    path = store / CODEC_ARRAYS
    return FileEntry(CODEC_ARRAYS, path.stat().st_size, file_digest(path)) if path.is_file() else None


def _sample(plan: BuildPlan, corpus: Corpus, text: TextEncoder, graph: Graph) -> Iterator[Array]:
    """Memory (tokens, d_model) float32 of passages in even steps through the corpus, in an order that is always theirs.

    Memory that is not finite is an error of the shard it belongs to, which says which passage it is.
    """
    step = max(1, plan.num_passages // SAMPLE_PASSAGES)
    passages = islice(corpus.passages(), 0, step * SAMPLE_PASSAGES, step)
    ids = [text.passage(passage.title, passage.text)[0] for passage in passages]
    for rows in length_batches([len(row) for row in ids], plan.batch_tokens):
        yield from encode_passages(graph, [ids[row] for row in rows])
