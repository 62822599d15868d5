"""Passages that rows name, each kept and encoded once; and where they come from: a store, or a corpus on its own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

import numpy as np

from glimmer_export.exporter.memory.corpus_texts import CorpusTexts, open_corpus
from glimmer_export.exporter.training.batch import Ids
from glimmer_export.exporter.training.ragged import Ragged
from glimmer_export.exporter.training.texts import RowText
from glimmer_export.runtime.candidates import Candidate, PassageSource
from glimmer_export.runtime.store import MemoryStore, Passage

__all__ = ["CorpusTexts", "PassageTable", "open_corpus"]

PART_SIZE = 4096
"""Passages whose texts are read at a time."""


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

    def contents(self) -> Iterator[bytes]:
        """What a model reads of each passage, in the table's order, for a digest: tokens, or texts that it joins."""
        for start in range(0, len(self), PART_SIZE):
            places = range(start, min(start + PART_SIZE, len(self)))
            if self.text.joins:
                yield from (json.dumps([passage.title, passage.text]).encode() for passage in self._passages([*places]))
            else:
                yield from (np.asarray(self.ids(place), np.int32).tobytes() for place in places)

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
