"""The store's SQLite file, read from any number of threads at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

from glimmer_export.runtime.arguments import described
from glimmer_export.runtime.contract import ClosedError, PassageError, PassageNumberError, StoreError
from glimmer_export.runtime.contract.store_layout import FOLDING
from glimmer_export.runtime.contract.text_schema import (
    SELECT_HIGHEST,
    SELECT_NUMBER,
    SELECT_NUMBERS,
    SELECT_PASSAGE,
    is_id,
    names_pages,
    without_pages,
)
from glimmer_export.runtime.retrieval import Hit
from glimmer_export.runtime.retrieval.fts5 import Fts5Index
from glimmer_export.runtime.sqlite_file import SqliteFile

__all__ = ["PASSAGE_KINDS", "Passage", "PassageTexts", "no_such_number"]

TEXT, PAGE = (str,), (str, type(None))
PASSAGE_KINDS = ((int, str), TEXT, TEXT, PAGE)
"""Of the values of a passage's id, title, text and page as they stand in the file."""


@dataclass(frozen=True)
class Passage:
    """A passage; `id` is None for a text that came without one.

    `wikipedia_id` is the page that it is of, as KILT names pages; None if its corpus does not say.
    """

    id: int | str | None
    title: str
    text: str
    wikipedia_id: str | None = None


class PassageTexts:
    """Ids, titles and texts by passage number, and their full-text index if it is FTS5's.

    Each reader takes a read-only connection that no other uses and gives it back, so nobody waits for anybody; as
    many are made as readers there were at one time. `names_pages`: whether passages may have a wikipedia_id.
    """

    def __init__(
        self, path: Path, end: int, check: Callable[[], None] = lambda: None, *, folding: int = FOLDING
    ) -> None:
        """Open the file; raises StoreError if it is not SQLite or the last passage's number is not `end` - 1.

        `check` raises where what was opened may be the file of another store; `folding` is that of its index.
        """
        self._path, self._check, self._index = path, check, Fts5Index(folding)
        self._idle: deque[SqliteFile] = deque()
        self._closed = Event()
        with self._connection() as file:
            ((highest,),) = file.checked(SELECT_HIGHEST, (), [(int, type(None))])
            self.names_pages = names_pages(file)
        if (-1 if highest is None else highest) != end - 1:
            self.close()
            found = "none" if highest is None else f"numbers up to {highest}"
            raise self._damaged(found, expected=f"numbers up to {end - 1}")

    def all_numbers(self) -> list[int]:
        """The numbers of all passages that are there, rising."""
        with self._connection() as file:
            return [number for (number,) in file.checked(SELECT_NUMBERS, (), [(int,)])]

    def numbers(self, ids: Sequence[int | str]) -> list[int]:
        """Passage numbers of ids, in their order; raises PassageError for an id that the store does not hold."""
        numbers = []
        with self._connection() as file:
            for value in ids:
                row = next(file.checked(SELECT_NUMBER, (value,), [(int,)]), None) if is_id(value) else None
                if row is None:
                    raise PassageError(
                        f"passage id {described(value)}", expected=f"an id in {self._path.parent}", found="none",
                        fix='give ids as the corpus has them (1 and "1" are two ids)',
                    )
                numbers.append(row[0])
        return numbers

    def passages(self, numbers: Sequence[int]) -> list[Passage]:
        """Passages by number, in their order; raises StoreError for a number that the file does not have."""
        passages = []
        statement = SELECT_PASSAGE if self.names_pages else without_pages(SELECT_PASSAGE)
        with self._connection() as file:
            for number in numbers:
                row = next(file.checked(statement, (number,), PASSAGE_KINDS), None)
                if row is None:
                    raise self._damaged("none", expected=f"a passage of the number {number}")
                passages.append(Passage(*row))
        return passages

    def search(self, question: str, top_k: int) -> list[Hit]:
        """The best passages for a question by BM25, best first."""
        with self._connection() as file:
            return self._index.search(file, question, top_k)

    def close(self) -> None:
        """Close the file; readers that are under way finish first."""
        self._closed.set()
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _connection(self) -> Iterator[SqliteFile]:
        if self._closed.is_set():
            raise ClosedError(
                f"store {self._path.parent}", expected="an open one", found="one that was closed", fix="open it again"
            )
        try:
            file = self._idle.pop()
        except IndexError:
            file = self._connect()
        try:
            yield file
        finally:
            self._idle.append(file)
            if self._closed.is_set():
                self.close()

    def _connect(self) -> SqliteFile:
        file = SqliteFile.reading(self._path, partial(self._damaged, expected="a store's SQLite file"))
        try:
            self._check()
        except StoreError:
            file.close()
            raise
        return file

    def _damaged(self, found: str, *, expected: str) -> StoreError:
        fix = f"see what mends it with `glimmer-export memory verify {self._path.parent}`"
        return StoreError(str(self._path), expected=expected, found=found, fix=fix)


def no_such_number(directory: Path, number: int) -> PassageNumberError:
    """The error for a number that a store does not have, or has no more."""
    return PassageNumberError(
        f"passage number {described(number)}", expected=f"that of a passage in {directory}", found="none of it",
        fix="look ids up with `numbers`",
    )
