"""The store's SQLite file, read from any number of threads at once."""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from runtime.arguments import described
from runtime.contract import ClosedError, PassageError, PassageNumberError, StoreError
from runtime.contract.store_layout import FOLDING
from runtime.contract.text_schema import (
    SELECT_HIGHEST,
    SELECT_NUMBER,
    SELECT_NUMBERS,
    SELECT_PASSAGE,
    fts5_missing,
    is_id,
    names_pages,
    without_pages,
)
from runtime.retrieval import Hit
from runtime.retrieval.fts5 import Fts5Index

__all__ = ["Passage", "PassageTexts", "no_such_number"]


@dataclass(frozen=True)
class Passage:
    """A passage; `id` is None for a text that came without one.

    `wikipedia_id` is the page that it is of, as KILT names pages; None where its corpus does not say.
    """

    id: int | str | None
    title: str
    text: str
    wikipedia_id: str | None = None


class PassageTexts:
    """Ids, titles and texts by passage number, and their full-text index where it is FTS5's.

    Each reader takes a read-only connection that no other uses and gives it back, so nobody waits for anybody; as
    many are made as readers there were at one time. `names_pages`: whether passages may have a wikipedia_id.
    """

    def __init__(
        self, path: Path, end: int, check: Callable[[], None] = lambda: None, *, folding: int = FOLDING
    ) -> None:
        """Open the file; raises StoreError where it is not SQLite or the last passage's number is not `end` - 1.

        `check` raises where what was opened may be the file of another store; `folding` is that of its index.
        """
        self._path, self._check, self._index = path, check, Fts5Index(folding)
        # immutable: nothing may write a finished store, so SQLite need not lock or look for changes.
        self._uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"
        self._idle: deque[sqlite3.Connection] = deque()
        self._closed = Event()
        with self._connection() as connection:
            (highest,) = connection.execute(SELECT_HIGHEST).fetchone()
            self.names_pages = names_pages(connection)
        if (-1 if highest is None else highest) != end - 1:
            self.close()
            found = "none" if highest is None else f"numbers up to {highest}"
            raise self._damaged(expected=f"numbers up to {end - 1}", found=found)

    def all_numbers(self) -> list[int]:
        """The numbers of all passages that are there, rising."""
        with self._connection() as connection:
            return [number for (number,) in connection.execute(SELECT_NUMBERS)]

    def numbers(self, ids: Sequence[int | str]) -> list[int]:
        """Passage numbers of ids, in their order; raises PassageError for an id that the store does not hold."""
        numbers = []
        with self._connection() as connection:
            for value in ids:
                row = connection.execute(SELECT_NUMBER, (value,)).fetchone() if is_id(value) else None
                if row is None:
                    raise PassageError(
                        f"passage id {described(value)}", expected=f"an id in {self._path.parent}", found="none",
                        fix='give ids as the corpus has them (1 and "1" are two ids)',
                    )
                numbers.append(row[0])
        return numbers

    def passages(self, numbers: Sequence[int]) -> list[Passage]:
        """Passages by number, in their order; raises PassageNumberError for a number that there is not."""
        passages = []
        statement = SELECT_PASSAGE if self.names_pages else without_pages(SELECT_PASSAGE)
        with self._connection() as connection:
            for number in numbers:
                row = connection.execute(statement, (number,)).fetchone()
                if row is None:
                    raise no_such_number(self._path.parent, number)
                passages.append(Passage(*row))
        return passages

    def search(self, question: str, top_k: int) -> list[Hit]:
        """The best passages for a question by BM25, best first."""
        with self._connection() as connection:
            return self._index.search(connection, question, top_k)

    def close(self) -> None:
        """Close the file; readers that are under way finish first."""
        self._closed.set()
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        if self._closed.is_set():
            raise ClosedError(
                f"store {self._path.parent}", expected="an open one", found="one that was closed", fix="open it again"
            )
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._connect()
        try:
            yield connection
        except sqlite3.Error as reason:
            if "no such module: fts5" in str(reason):
                raise fts5_missing() from None
            raise self._damaged(expected="a store's SQLite file", found=str(reason)) from None
        finally:
            self._idle.append(connection)
            if self._closed.is_set():
                self.close()

    def _connect(self) -> sqlite3.Connection:
        try:
            # One thread at a time has it, though not always the same one.
            connection = sqlite3.connect(self._uri, uri=True, check_same_thread=False)
        except sqlite3.Error as reason:
            raise self._damaged(expected="a readable file", found=str(reason)) from None
        try:
            self._check()
        except StoreError:
            connection.close()
            raise
        return connection

    def _damaged(self, *, expected: str, found: str) -> StoreError:
        return StoreError(str(self._path), expected=expected, found=found, fix="copy or build the store again")


def no_such_number(directory: Path, number: int) -> PassageNumberError:
    """The error for a number that a store does not have, or has no more."""
    return PassageNumberError(
        f"passage number {described(number)}", expected=f"that of a passage in {directory}", found="none of it",
        fix="look ids up with `numbers`",
    )
