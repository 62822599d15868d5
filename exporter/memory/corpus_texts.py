"""A corpus on its own: its texts and what finds them, without memory and without a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from glimmer_export.exporter.files.whole_file import write_errors
from glimmer_export.exporter.memory.corpus import Corpus, CorpusSource
from glimmer_export.exporter.memory.full_text import (
    AUTO,
    TANTIVY,
    choose_engine,
    require_engine,
    write_texts_and_index,
)
from glimmer_export.exporter.memory.texts import write_texts
from glimmer_export.exporter.report.progress import progress_bar
from glimmer_export.runtime.contract import FileEntry, SegmentEntry, TextsEntry
from glimmer_export.runtime.contract.store_layout import TEXTS
from glimmer_export.runtime.passage_texts import Passage, PassageTexts
from glimmer_export.runtime.retrieval import Hit, Retriever
from glimmer_export.runtime.retrieval.tantivy_bm25 import TantivyIndex

__all__ = ["CorpusTexts", "open_corpus"]

PART_SIZE = 4096
"""Passages of a corpus that are read at a time."""
NONE_DELETED = np.zeros(0, np.int64)


class CorpusTexts:
    """A corpus's passages, numbered in their order, and what finds them: a store's texts and index without a store.

    It ranks as a store does that `memory build` makes of the corpus. Raises PassageError for an unknown id.
    """

    def __init__(self, texts: PassageTexts, retriever: Retriever | None, num_passages: int) -> None:
        """`retriever` None: nothing is searched for."""
        self._texts, self._retriever, self.num_passages = texts, retriever, num_passages

    def numbers(self, ids: Iterable[int | str]) -> list[int]:
        """Passage numbers of ids, in their order."""
        return self._texts.numbers([*ids])

    def passages(self, numbers: Iterable[int]) -> list[Passage]:
        """Passages by their numbers, in their order."""
        return self._texts.passages([*numbers])

    def search(self, question: str, top_k: int) -> list[Hit]:
        """The best passages for a question by BM25, best first."""
        assert self._retriever is not None
        return self._retriever.search(question, min(top_k, self.num_passages))


@contextmanager
def open_corpus(
    source: CorpusSource, *, folder: Path | None = None, searched: bool = True, progress: bool = False
) -> Iterator[CorpusTexts]:
    """A corpus's texts, and their index if they are to be `searched`, in files that are gone at the end.

    They stand in a new folder below `folder`, by default that for the system's temporary files. Raises CorpusError as
    `memory build` does, OutputError for a full disk, MissingExtraError without the package of the index.
    """
    corpus = Corpus.scan(source, part_size=PART_SIZE)
    engine = choose_engine(AUTO, corpus.num_passages) if searched else None
    if engine is not None:
        require_engine(engine)
    with ExitStack() as open_files:
        place = Path(open_files.enter_context(TemporaryDirectory(prefix="glimmer-corpus-", dir=folder)))
        with write_errors(place), progress_bar("Writing texts", corpus.num_passages, shown=progress) as advance:
            parts, segments = _write(place, corpus, engine, advance)
        texts = PassageTexts(place, parts, NONE_DELETED)
        open_files.callback(texts.close)
        searching = TantivyIndex(place, segments, NONE_DELETED) if engine == TANTIVY else texts
        yield CorpusTexts(texts, searching if searched else None, corpus.num_passages)


def _write(
    place: Path, corpus: Corpus, engine: str | None, advance: Callable[[int], None]
) -> tuple[tuple[TextsEntry, ...], tuple[SegmentEntry, ...]]:
    count = corpus.num_passages
    if engine is not None:
        return write_texts_and_index(place, 0, enumerate(corpus.passages()), count, engine, advance=advance)
    write_texts(place / TEXTS, corpus.passages(), advance=advance, folding=None)
    return (TextsEntry(FileEntry.of(place, place / TEXTS), 0, count, count, checksums=True),), ()
