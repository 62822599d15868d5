"""A full-text index of passages alone, without a store's memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from glimmer_export.exporter.memory.full_text import FTS5, write_texts_and_index
from glimmer_export.runtime.contract.store_layout import FOLDING
from glimmer_export.runtime.passage_texts import Passage, PassageTexts
from glimmer_export.runtime.retrieval import Retriever
from glimmer_export.runtime.retrieval.tantivy_bm25 import TantivyIndex

NONE_DELETED = np.zeros(0, np.int64)


@contextmanager
def indexed(
    folder: Path, passages: Sequence[Passage], engine: str, *, folding: int = FOLDING
) -> Iterator[tuple[PassageTexts, Retriever]]:
    """The passages' texts, numbered from 0, and what searches them."""
    parts, segments = write_texts_and_index(
        folder, 0, enumerate(passages), len(passages), engine, advance=lambda _: None, folding=folding
    )
    texts = PassageTexts(folder, parts, NONE_DELETED, folding=folding)
    index: Retriever = texts
    if engine != FTS5:
        index = TantivyIndex(folder, segments, NONE_DELETED, folding=folding)
    yield texts, index
    texts.close()
