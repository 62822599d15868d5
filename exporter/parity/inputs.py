"""What both sides are given: the questions with their passages, found once, and those passages' memory.

A side's memory comes from a store, or from a memory encoder on the spot, in the codec that its graphs read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from glimmer_export.calibration.questions import Question, given_passages
from glimmer_export.exporter.parity.options import ParityOptions
from glimmer_export.runtime import Passage, Session
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.candidates import Candidate, candidates_from_given, candidates_from_search, join_question
from glimmer_export.runtime.codecs import Codec
from glimmer_export.runtime.contract import BundleError, OptionError, PassageError, QuestionError, StoreError
from glimmer_export.runtime.passage_memory import PassageMemory
from glimmer_export.runtime.store import MemoryStore
from glimmer_export.runtime.text import TextEncoder

__all__ = [
    "Encode", "EncodedMemory", "MemorySource", "Row", "Rows", "StoredMemory", "TokensAlone", "codec_name",
    "rows_from_questions",
]  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A question that can be taken: its token ids, and its passages, best first, numbered as in the table."""

    question: Question
    ids: list[int]
    candidates: list[Candidate]

    @property
    def numbers(self) -> list[int]:
        """The passages' places in the table."""
        return [candidate.number for candidate in self.candidates if candidate.number is not None]


class PassageTable:
    """Every passage of the compared questions once: those of the candidate's store, and texts given with questions."""

    def __init__(self, store: MemoryStore | None, text: TextEncoder) -> None:
        self._store, self._text = store, text
        self._numbers: dict[int | Passage, int] = {}
        self._entries: list[tuple[Passage, int | None]] = []

    def add(self, candidate: Candidate) -> Candidate:
        """The candidate under its number in the table."""
        key = candidate.passage if candidate.number is None else candidate.number
        number = self._numbers.setdefault(key, len(self._entries))
        if number == len(self._entries):
            self._entries.append((candidate.passage, candidate.number))
        return replace(candidate, number=number)

    def passage(self, number: int) -> Passage:
        """A passage by its number in the table."""
        return self._entries[number][0]

    def store_number(self, number: int) -> int | None:
        """Where the candidate's store has a passage; None for a text that was given."""
        return self._entries[number][1]

    def input_ids(self, number: int) -> list[int]:
        """A passage's token ids, EOS last."""
        passage, stored = self._entries[number]
        if stored is not None and self._store is not None:
            ids: list[int] = self._store.input_ids(stored).tolist()
            return ids
        return self._text.passage(passage.title, passage.text)[0]


@dataclass(frozen=True)
class Rows:
    """The rows of a question file, the passages they name, and how many questions could not be taken.

    Of the passages given with the questions, how many were skipped for having no text, and how many were cut.
    """

    rows: list[Row]
    table: PassageTable
    errors: int
    skipped_passages: int = 0
    truncated_passages: int = 0


def rows_from_questions(
    session: Session, questions: Sequence[Question], options: ParityOptions, advance: Callable[[int], None]
) -> Rows:
    """Tokenise each question and find its passages as the candidate's session would; `advance(1)` for each.

    Raises OptionError as a session does, QuestionFileError if passages are to be given and are not.
    """
    session.answer_many([], options.top_k, options.top_m)
    if session.store is None and not options.given_passages:
        raise OptionError(
            "parity", expected="a store to retrieve from, or passages given with the questions", found="neither",
            fix="name a store, or take those given",
        )
    table = PassageTable(session.store, session.text)
    rows: list[Row] = []
    errors = 0
    for question in questions:
        advance(1)
        try:
            ids = session.text.question(question.question)
            found = _candidates(session, question, options)
            found = join_question(question.question, found, session.text, session.bundle.manifest.model)
        except (QuestionError, PassageError):
            errors += 1
        else:
            rows.append(Row(question, ids, [table.add(candidate) for candidate in found]))
    skipped = sum(question.skipped for question in questions) if options.given_passages else 0
    truncated = sum(candidate.truncated for row in rows for candidate in row.candidates)
    return Rows(rows, table, errors, skipped, truncated)


def _candidates(session: Session, question: Question, options: ParityOptions) -> list[Candidate]:
    if options.given_passages or session.store is None:
        return candidates_from_given(session.store, given_passages(question)[: options.top_k])
    top_k = options.top_k or session.bundle.manifest.model.num_retrieved
    return candidates_from_search(session.store, question.question, top_k)


Encode = Callable[[list[list[int]]], Sequence[Array]]
"""Tokenised passages -> their memory, each (tokens, d_model) float32."""

MAX_CACHED_BYTES = 1 << 30
PASSAGES_AT_ONCE = 16


class MemorySource(Protocol):
    """Memory by a passage's number in the table, as a MemoryStore gives it by its own; `codec` None: there is none."""

    @property
    def codec(self) -> Codec | None:
        """What the memory is in."""
        ...

    def prepare(self, numbers: Sequence[int]) -> None:
        """Make ready what a batch will read."""
        ...

    def prefetch(self, numbers: Iterable[int]) -> None:
        """As a MemoryStore does."""
        ...

    def memory(self, number: int) -> PassageMemory:
        """A passage's memory in the codec."""
        ...

    def input_ids(self, number: int) -> Array:
        """Token ids (tokens,) int32, which FiD encodes itself."""
        ...


def codec_name(codec: Codec | None) -> str | None:
    """The name of a codec; None for none."""
    return None if codec is None else codec.layout.name


class TokensAlone:
    """No memory: for FiD."""

    def __init__(self, table: PassageTable, codec: Codec | None = None) -> None:
        self.table, self.codec = table, codec

    def prepare(self, numbers: Sequence[int]) -> None:
        """Nothing to do."""

    def prefetch(self, numbers: Iterable[int]) -> None:
        """Nothing to do."""

    def memory(self, number: int) -> PassageMemory:
        """Raises ValueError: there is none."""
        raise ValueError(f"no memory of passage {number}")

    def input_ids(self, number: int) -> Array:
        """Token ids (tokens,) int32."""
        return np.array(self.table.input_ids(number), np.int32)


class EncodedMemory(TokensAlone):
    """Memory that an encoder gives of the passages' tokens, through the codec; up to a gigabyte of it is kept."""

    def __init__(self, table: PassageTable, encode: Encode, codec: Codec) -> None:
        super().__init__(table, codec)
        self._encode, self._encode_memory = encode, codec.encode
        self._cache: dict[int, PassageMemory] = {}
        self._bytes = 0

    def prepare(self, numbers: Sequence[int]) -> None:
        """Encode those that are not at hand, those of like length together. Raises BundleError if not finite."""
        if self._bytes > MAX_CACHED_BYTES:
            self._cache, self._bytes = {}, 0
        missing = [(number, self.table.input_ids(number)) for number in {*numbers} - self._cache.keys()]
        missing.sort(key=lambda item: (len(item[1]), item[0]))
        for start in range(0, len(missing), PASSAGES_AT_ONCE):
            group = missing[start : start + PASSAGES_AT_ONCE]
            for (number, _), states in zip(group, self._encode([ids for _, ids in group]), strict=True):
                try:
                    self._cache[number] = PassageMemory(self._encode_memory(states))
                except FloatingPointError:
                    raise BundleError(
                        "graph memory_encoder", expected="finite memory of a passage", found="NaN or infinity",
                        fix="quantise or export the bundle again",
                    ) from None
                self._bytes += self._cache[number].codes.nbytes

    def memory(self, number: int) -> PassageMemory:
        """A passage's memory in the codec."""
        if number not in self._cache:
            self.prepare([number])
        return self._cache[number]


class StoredMemory(TokensAlone):
    """Memory of a store, and of an encoder for the texts that no store has, in the same codec."""

    def __init__(self, table: PassageTable, store: MemoryStore | None, texts: EncodedMemory, *, own: bool) -> None:
        """`own`: the store is the candidate's, whose numbers the table has; another is asked by the passages' ids."""
        super().__init__(table, texts.codec)
        self._store, self._texts, self._own = store, texts, own
        self._numbers: dict[int, int] = {}

    def stored(self, number: int) -> PassageMemory | None:
        """What the store has of a passage; None for a given text. Raises StoreError as `memory`."""
        if self._store is None or self.table.store_number(number) is None:
            return None
        return self._store.memory(self._number(self._store, number))

    def prepare(self, numbers: Sequence[int]) -> None:
        """Encode the given texts."""
        self._texts.prepare([n for n in numbers if self._store is None or self.table.store_number(n) is None])

    def memory(self, number: int) -> PassageMemory:
        """A passage's memory; raises StoreError if another store has another passage under the id, or none."""
        found = self.stored(number)
        return self._texts.memory(number) if found is None else found

    def _number(self, store: MemoryStore, number: int) -> int:
        if self._own:
            return self.table.store_number(number) or 0
        if number not in self._numbers:
            passage = self.table.passage(number)
            try:
                found = store.numbers([passage.id]) if passage.id is not None else []
            except PassageError:
                found = []
            there = store.passage(found[0]) if found else None
            if there != passage:
                text = "no passage of that id" if there is None else f"{there.title[:40]!r}, {there.text[:60]!r}"
                raise StoreError(
                    f"store {store.directory}, passage {passage.id!r}", expected="the candidate store's passage",
                    found=text, fix="build both stores from one corpus",
                )
            self._numbers[number] = found[0]
        return self._numbers[number]
