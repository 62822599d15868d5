"""The compared questions with their passages, found once: every side is put the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from glimmer_export.calibration.questions import Question, given_passages
from glimmer_export.exporter.parity.options import ParityOptions
from glimmer_export.runtime import Passage, Session
from glimmer_export.runtime.candidates import Candidate, candidates_from_given, candidates_from_search, join_question
from glimmer_export.runtime.contract import OptionError, PassageError, QuestionError
from glimmer_export.runtime.store import MemoryStore
from glimmer_export.runtime.text import TextEncoder

__all__ = ["PassageTable", "Row", "Rows", "rows_from_questions"]


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

    Raises OptionError as a session does, QuestionFileError where passages are to be given and are not.
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
