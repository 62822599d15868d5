"""A full-text index of passages alone, without a store's memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from glimmer_export.exporter.memory.texts import FTS5, write_index, write_texts
from glimmer_export.runtime.contract.store_layout import FOLDING
from glimmer_export.runtime.passage_texts import Passage, PassageTexts
from glimmer_export.runtime.retrieval import Retriever
from glimmer_export.runtime.retrieval.tantivy_bm25 import TantivyIndex


@contextmanager
def indexed(
    folder: Path, passages: Sequence[Passage], engine: str, *, folding: int = FOLDING
) -> Iterator[tuple[PassageTexts, Retriever]]:
    """The passages' texts, numbered from 0, and what searches them."""
    in_texts = folding if engine == FTS5 else None
    write_texts(folder / "texts", passages, advance=lambda _: None, folding=in_texts)
    texts = PassageTexts(folder / "texts", len(passages), folding=folding)
    index: Retriever = texts
    if engine != FTS5:
        entry = write_index(folder, 0, enumerate(passages), engine, advance=lambda _: None, folding=folding)
        files = [folder / file.path for file in entry.files]
        index = TantivyIndex(files, num_passages=len(passages), folding=folding)
    yield texts, index
    texts.close()
