"""Passages that rows name, each kept and encoded once; and where they come from: a store, or a corpus on its own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from glimmer_export.exporter.files.whole_file import write_errors
from glimmer_export.exporter.memory import CorpusSource
from glimmer_export.exporter.memory.corpus import Corpus
from glimmer_export.exporter.memory.texts import AUTO, FTS5, choose_engine, require_engine, write_index, write_texts
from glimmer_export.exporter.report.progress import progress_bar
from glimmer_export.exporter.training.batch import Ids
from glimmer_export.exporter.training.ragged import Ragged
from glimmer_export.exporter.training.texts import RowText
from glimmer_export.runtime.candidates import Candidate, PassageSource
from glimmer_export.runtime.contract import TEXTS
from glimmer_export.runtime.contract.store_layout import FOLDING
from glimmer_export.runtime.passage_texts import PassageTexts
from glimmer_export.runtime.retrieval import Hit, Retriever
from glimmer_export.runtime.retrieval.tantivy_bm25 import TantivyIndex
from glimmer_export.runtime.store import MemoryStore, Passage

__all__ = ["CorpusTexts", "PassageTable", "open_corpus"]

PART_SIZE = 4096
"""Passages of a corpus that are read at a time."""


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
        with write_errors(place):
            retriever: Retriever | None = None
            with progress_bar("Writing texts", corpus.num_passages, shown=progress) as advance:
                folding = FOLDING if engine == FTS5 else None
                write_texts(place / TEXTS, corpus.passages(), advance=advance, folding=folding)
            if engine not in (None, FTS5):
                with progress_bar("Indexing texts", corpus.num_passages, shown=progress) as advance:
                    entry = write_index(place, 0, enumerate(corpus.passages()), engine, advance=advance)
                files = [place / file.path for file in entry.files]
                retriever = TantivyIndex(files, num_passages=corpus.num_passages, folding=entry.folding)
        texts = PassageTexts(place / TEXTS, corpus.num_passages)
        open_files.callback(texts.close)
        yield CorpusTexts(texts, texts if engine == FTS5 else retriever, corpus.num_passages)


class PassageTable:
    """Every passage that rows name, once, in the order in which they came; places count from 0.

    A passage of the source is known by its number there, a text that came with a question by itself. Token ids are
    those of the store where that has them, else encoded as a passage is added; where a model joins question and passage
    in one text there are none of a passage alone.
    """

    def __init__(
        self, text: RowText, source: PassageSource | None = None, *, stored: MemoryStore | None = None
    ) -> None:
        """`stored`: a store, which is the source too, whose token ids are those that `text` gives."""
        self.text, self.source = text, source
        self._stored = stored
        self._places: dict[int | Passage, int] = {}
        self._numbers = Ragged()
        self._texts: dict[int, Passage] = {}
        self._ids = Ragged()
        self.num_cut = 0

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def num_texts(self) -> int:
        """How many of them came as texts, and are in no store."""
        return len(self._texts)

    def add(self, candidate: Candidate) -> int:
        """The place of a candidate's passage; raises QuestionError if its text cannot be encoded."""
        key = candidate.passage if candidate.number is None else candidate.number
        place = self._places.get(key)
        return self._append(candidate.passage, candidate.number, key) if place is None else place

    def add_texts(self, passages: Iterable[Passage]) -> range:
        """The places of passages that are all different, and that no row names as texts of its own."""
        first = len(self)
        for passage in passages:
            self._append(passage, None, None)
        return range(first, len(self))

    def number(self, place: int) -> int | None:
        """A passage's number in the source; None for a text."""
        found = self._numbers[place]
        return int(found[0]) if len(found) else None

    def ids(self, place: int) -> Ids:
        """A passage's token ids, (tokens,) int32."""
        number = self.number(place)
        if self._stored is not None and number is not None:
            return self._stored.input_ids(number)
        return self._ids[place]

    def joined(self, question: str, places: Iterable[int]) -> list[Ids]:
        """The token ids of a question and each of these passages in one text, (tokens,) int32 each, encoded here."""
        return [
            np.array(self.text.joined(question, passage.title, passage.text)[0], np.int32)
            for passage in self._passages([*places])
        ]

    def _append(self, passage: Passage, number: int | None, key: int | Passage | None) -> int:
        ids: list[int] = []
        if not self.text.joins and (self._stored is None or number is None):
            ids, cut = self.text.passage(passage.title, passage.text)
            self.num_cut += cut
        self._ids.append(ids)
        place = self._numbers.append([] if number is None else [number])
        if number is None:
            self._texts[place] = passage
        if key is not None:
            self._places[key] = place
        return place

    def _passages(self, places: list[int]) -> list[Passage]:
        numbers = [number for place in places if (number := self.number(place)) is not None]
        found = iter(self.source.passages(numbers) if self.source is not None and numbers else ())
        return [self._texts[place] if place in self._texts else next(found) for place in places]
