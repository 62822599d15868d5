"""The SQLite files of a store's texts, read from any number of threads at once, each passage checked as it is read."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.arguments import described
from glimmer_export.runtime.contract import ClosedError, PassageError, PassageNumberError, StoreError
from glimmer_export.runtime.contract.files import file_errors
from glimmer_export.runtime.contract.store_layout import FOLDING, TextsEntry
from glimmer_export.runtime.contract.text_schema import (
    CHECKSUM,
    PAGES,
    SELECT_BETWEEN,
    SELECT_BOUNDS,
    SELECT_NUMBER,
    SELECT_NUMBERS,
    SELECT_PASSAGE,
    has_column,
    is_id,
    lacking,
    text_checksum,
)
from glimmer_export.runtime.retrieval import Hit
from glimmer_export.runtime.retrieval.fts5 import Fts5Index
from glimmer_export.runtime.sqlite_file import SqliteFile

__all__ = ["PASSAGE_KINDS", "Passage", "PassageTexts", "live_end", "no_such_number", "sound_passage"]

TEXT, PAGE, CRC = (str,), (str, type(None)), (int, type(None))
PASSAGE_KINDS = ((int, str), TEXT, TEXT, PAGE, CRC)
"""Of the values of a passage's id, title, text, page and checksum as they stand in the file."""
UNREADABLE = "copy the store again, or see `glimmer-export memory verify`"
FEWEST_IDLE, MOST_IDLE = 2, 64
"""Connections that are kept of one file, and of all together: each holds a descriptor."""


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

    `names_pages`: whether passages may have a wikipedia_id.
    """

    def __init__(
        self, directory: Path, parts: Sequence[TextsEntry], tombstones: NDArray[np.int64],
        check: Callable[[], None] = lambda: None, *, folding: int = FOLDING, verify: bool = True,
    ) -> None:
        """Open the files, which follow each other; `tombstones` (n,) rise: passages that are not there.

        `check` raises where what was opened may be the file of another store; `folding` is that of FTS5's index;
        `verify`: each passage is checked whenever it is read, where its file has checksums. Raises StoreError if one is
        not SQLite, or does not hold the first and the last of its passages.
        """
        self._directory, self._tombstones, self._index = directory, tombstones, Fts5Index(folding)
        self._ends = [part.end for part in parts]
        self._closed = Event()
        self._files: list[TextsFile] = []
        idle = max(FEWEST_IDLE, MOST_IDLE // max(1, len(parts)))
        try:
            for part in parts:
                self._files.append(TextsFile(directory, part, check, self._closed, idle=idle, verify=verify))
                dead = tombstones[slice(*tombstones.searchsorted([part.first, part.end]))]
                self._files[-1].check_bounds(dead)
        except BaseException:
            self.close()
            raise
        self.names_pages = any(file.names_pages for file in self._files)

    def all_numbers(self) -> list[int]:
        """The numbers of all passages that are there, rising."""
        found = np.array([number for file in self._files for number in file.all_numbers()], np.int64)
        numbers: list[int] = np.setdiff1d(found, self._tombstones, assume_unique=True).tolist()
        return numbers

    def numbers(self, ids: Sequence[int | str]) -> list[int]:
        """Passage numbers of ids, in their order; raises PassageError for an id that the store does not hold."""
        numbers = []
        for value, found in zip(ids, self.find(ids), strict=True):
            if found is None:
                raise PassageError(
                    f"passage id {described(value)}", expected=f"an id in {self._directory}", found="none",
                    fix='give ids as the corpus has them (1 and "1" are two ids)',
                )
            numbers.append(found)
        return numbers

    def find(self, ids: Sequence[int | str | None]) -> list[int | None]:
        """The number of each id, in their order, None of one that the store does not hold."""
        numbers: list[int | None] = [None] * len(ids)
        wanted = [place for place, value in enumerate(ids) if is_id(value)]
        for file in reversed(self._files):
            found = zip(wanted, file.numbers([ids[place] for place in wanted]), strict=True)
            numbers_here = {place: number for place, number in found if number is not None and self._is_there(number)}
            for place, number in numbers_here.items():
                numbers[place] = number
            wanted = [place for place in wanted if place not in numbers_here]
            if not wanted:
                break
        return numbers

    def find_between(self, least: str, below: str) -> list[tuple[int, str]]:
        """Numbers and ids of the passages whose ids are strings from `least` to `below`, in the order of numbers."""
        found = [row for file in self._files for row in file.between(least, below)]
        return sorted((number, identifier) for number, identifier in found if self._is_there(number))

    def passages(self, numbers: Sequence[int]) -> list[Passage]:
        """Passages by number, in their order; raises StoreError for a number that no file has."""
        by_file: dict[int, list[int]] = {}
        for place, number in enumerate(numbers):
            by_file.setdefault(min(bisect_right(self._ends, number), len(self._ends) - 1), []).append(place)
        passages: dict[int, Passage] = {}
        for index, places in by_file.items():
            passages.update(zip(places, self._files[index].passages([numbers[place] for place in places]), strict=True))
        return [passages[place] for place in range(len(numbers))]

    def search(self, question: str, top_k: int) -> list[Hit]:
        """The best passages for a question by the BM25 of FTS5, best first."""
        (only,) = self._files
        with only.connection() as file:
            return self._index.search(file, question, top_k)

    def close(self) -> None:
        """Close the files; readers that are under way finish first."""
        self._closed.set()
        for file in self._files:
            file.close()

    def _is_there(self, number: int) -> bool:
        place = int(self._tombstones.searchsorted(number))
        return place == len(self._tombstones) or self._tombstones[place] != number


class TextsFile:
    """One of the files.

    Each reader takes a read-only connection that no other uses and gives it back, so nobody waits for anybody; so many
    are kept as were used at one time, and no more than `idle`.
    """

    def __init__(
        self, directory: Path, entry: TextsEntry, check: Callable[[], None], closed: Event, *, idle: int, verify: bool
    ) -> None:
        """Open the file; nothing is opened any more, and what is given back is closed, once `closed` is set."""
        path = directory / entry.file.path
        self._directory, self._entry, self._path = directory, entry, path
        self._check, self._closed, self._most = check, closed, idle
        self._checks = verify and entry.checksums
        self._idle: deque[SqliteFile] = deque()
        with file_errors(error=StoreError, subject=f"texts {path}", fix=UNREADABLE), path.open("rb"):
            pass  # SQLite does not say why it cannot open a file
        with self.connection() as file:
            ((self._lowest, self._highest),) = file.checked(SELECT_BOUNDS, (), [(int, type(None))] * 2)
            self.names_pages = has_column(file, PAGES)

    def check_bounds(self, dead: NDArray[np.int64]) -> None:
        """Raise StoreError where passages are missing at its ends, or others are there; the `dead` ones may be."""
        first, end = self._entry.first, self._entry.end
        last = live_end(end, dead) - 1
        lowest, highest = (end, first - 1) if self._highest is None else (self._lowest, self._highest)
        if not (first <= lowest and last <= highest < end):
            found = "none" if self._highest is None else f"numbers from {lowest} to {highest}"
            raise self._damaged(found, expected=f"numbers from {first} up to {last} at least, below {end}")

    def all_numbers(self) -> list[int]:
        """The numbers of all its passages, rising."""
        with self.connection() as file:
            return [number for (number,) in file.checked(SELECT_NUMBERS, (), [(int,)])]

    def numbers(self, ids: Sequence[int | str | None]) -> list[int | None]:
        """The number of each id, None if it is not there."""
        with self.connection() as file:
            rows = (next(file.checked(SELECT_NUMBER, (value,), [(int,)]), None) for value in ids)
            numbers = [None if row is None else row[0] for row in rows]
        if self._checks:  # what the index of ids says is no more than a passage's own checksum vouches for
            found = [(value, number) for value, number in zip(ids, numbers, strict=True) if number is not None]
            passages = self.passages([number for _, number in found])
            for (value, _), passage in zip(found, passages, strict=True):
                if passage.id != value:
                    raise self._damaged(f"passage id {described(passage.id)}", expected=f"{described(value)}")
        return numbers

    def between(self, least: str, below: str) -> list[tuple[int, str]]:
        """Numbers and ids of the passages whose ids are strings from `least` to `below`."""
        with self.connection() as file:
            return [(number, value) for number, value in file.checked(SELECT_BETWEEN, (least, below), [(int,), (str,)])]

    def passages(self, numbers: Sequence[int]) -> list[Passage]:
        """Passages by number, in their order; raises StoreError for a number that the file does not have."""
        passages = []
        absent = [name for name, there in ((PAGES, self.names_pages), (CHECKSUM, self._checks)) if not there]
        statement = lacking(SELECT_PASSAGE, absent)
        with self.connection() as file:
            for number in numbers:
                row = next(file.checked(statement, (number,), PASSAGE_KINDS), None)
                if row is None:
                    raise self._damaged("none", expected=f"a passage of the number {number}")
                passage = sound_passage(number, row, checks=self._checks)
                if passage is None:
                    raise self._damaged(
                        "a checksum that does not fit", expected=f"passage number {number} as it was written"
                    )
                passages.append(passage)
        return passages

    def close(self) -> None:
        """Close what nobody uses."""
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def connection(self) -> Iterator[SqliteFile]:
        """A connection, until the end of the block; raises ClosedError once it was closed."""
        if self._closed.is_set():
            raise ClosedError(
                f"store {self._directory}", expected="an open one", found="one that was closed", fix="open it again"
            )
        try:
            file = self._idle.pop()
        except IndexError:
            file = self._connect()
        try:
            yield file
        finally:
            if len(self._idle) < self._most:
                self._idle.append(file)
            else:
                file.close()
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
        fix = f"see what mends it with `glimmer-export memory verify {self._directory}`"
        return StoreError(str(self._path), expected=expected, found=found, fix=fix)


def sound_passage(number: int, row: tuple[Any, ...], *, checks: bool) -> Passage | None:
    """The passage of a row of PASSAGE_KINDS; None where it is to have its own checksum, and has another."""
    *fields, checksum = row
    return None if checks and checksum != text_checksum(number, *fields) else Passage(*fields)


def live_end(end: int, dead: NDArray[np.int64]) -> int:
    """One more than the highest number below `end` that is not among the `dead` (n,), which rise."""
    following = dead[::-1] == np.arange(end - 1, end - 1 - len(dead), -1)
    return end - (len(dead) if following.all() else int(following.argmin()))


def no_such_number(directory: Path, number: int) -> PassageNumberError:
    """The error for a number that a store does not have, or has no more."""
    return PassageNumberError(
        f"passage number {described(number)}", expected=f"that of a passage in {directory}", found="none of it",
        fix="look ids up with `numbers`",
    )
