"""Write the store's SQLite file: every passage and, unless another engine has it, the full-text index, at once.

A change of the store does not write in the file that is there: it makes another from a copy.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.whole_file import whole_file
from glimmer_export.runtime.contract import StoreError
from glimmer_export.runtime.contract.store_layout import FOLDING
from glimmer_export.runtime.contract.text_schema import (
    ADD_PAGES,
    CREATE_TABLE,
    DELETE_PASSAGE,
    INSERT_PASSAGE,
    INSERT_WITH_PAGE,
    PASSAGE_WORDS,
    SELECT_BETWEEN,
    SELECT_NUMBER,
    SELECT_NUMBERS,
    SELECT_RANGE,
    TEXT_INDEXES,
    names_pages,
    without_pages,
)
from glimmer_export.runtime.passage_texts import PASSAGE_KINDS
from glimmer_export.runtime.retrieval.folding import passage_words
from glimmer_export.runtime.sqlite_file import SqliteFile
from glimmer_export.runtime.store import Passage

__all__ = [
    "change_texts", "find_chunks", "find_numbers", "read_texts", "stored_numbers", "write_numbered_texts",
    "write_texts",
]

MAX_NUMBER = 2**63 - 1

SETTINGS = (
    "PRAGMA page_size = 4096",
    # A file that was not finished is thrown away, so nothing need be rolled back; the finished one is synced once.
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
)


def write_texts(
    path: Path, passages: Iterable[Passage], *, advance: Callable[[int], None], folding: int | None = FOLDING
) -> None:
    """Write `path` anew, numbering the passages from 0 in their order; equal passages give equal bytes.

    `advance` is told how many passages came to be written. `folding` is that of FTS5's index, None for no index.

    Raises OSError for a full disk, and what reading `passages` raises; then the file is not there.
    """
    write_numbered_texts(path, enumerate(passages), advance=advance, folding=folding)


def write_numbered_texts(
    path: Path, passages: Iterable[tuple[int, Passage]], *, advance: Callable[[int], None], folding: int | None
) -> None:
    """Write `path` anew as `write_texts` does, of passages that have numbers, which rise."""
    with whole_file(path) as temporary, _writing(temporary) as connection:
        for statement in (*SETTINGS, "BEGIN", CREATE_TABLE):
            connection.execute(statement)
        _insert(connection, passages, advance)
        if folding is not None:
            for statement in (TEXT_INDEXES[folding].create, *TEXT_INDEXES[folding].fill):
                connection.execute(statement)
        connection.execute("COMMIT")


def change_texts(
    source: Path, path: Path, *, deleted: Iterable[int], added: Iterable[tuple[int, Passage]], first_added: int,
    advance: Callable[[int], None], folding: int | None, anew: bool = False,
) -> None:
    """Write `path`: what `source` holds, without the numbers `deleted`, with `added`, numbered from `first_added` on.

    What is deleted can no longer be found or read; its bytes may still lie in the file, unless it is written `anew`.
    `advance`, `folding` and the errors are as in `write_texts`.
    """
    if anew:
        gone = set(deleted)
        kept = ((number, passage) for number, passage in read_texts(source) if number not in gone)
        write_numbered_texts(path, chain(kept, added), advance=advance, folding=folding)
        return
    index = None if folding is None else TEXT_INDEXES[folding]
    with whole_file(path) as temporary:
        shutil.copyfile(source, temporary)
        with _writing(temporary) as connection:
            for statement in (*SETTINGS, "BEGIN"):
                connection.execute(statement)
            for number in deleted:
                for statement in (index.forget, DELETE_PASSAGE) if index else (DELETE_PASSAGE,):
                    connection.execute(statement, (number,))
                advance(1)
            _insert(connection, added, advance)
            if index:
                connection.execute(index.add, (first_added,))
            connection.execute("COMMIT")


def read_texts(path: Path, start: int = 0, stop: int = MAX_NUMBER) -> Iterator[tuple[int, Passage]]:
    """The passages numbered from `start` to below `stop`, in their order; StoreError where the file cannot be read."""
    with _reading(path) as connection:
        statement = SELECT_RANGE if names_pages(connection) else without_pages(SELECT_RANGE)
        for number, *row in connection.checked(statement, (start, stop), ((int,), *PASSAGE_KINDS)):
            yield number, Passage(*row)


def stored_numbers(path: Path) -> NDArray[np.int64]:
    """The numbers of all passages, (passages,) int64, rising; raises StoreError where the file cannot be read."""
    with _reading(path) as connection:
        return np.fromiter((number for (number,) in connection.checked(SELECT_NUMBERS, (), [(int,)])), np.int64)


def find_numbers(path: Path, ids: Iterable[int | str | None]) -> Iterator[list[int]]:
    """The number of each id, or none, in a list; raises StoreError where the file cannot be read."""
    with _reading(path) as connection:
        for value in ids:
            yield [number for (number,) in connection.checked(SELECT_NUMBER, (value,), [(int,)])]


def find_chunks(path: Path, documents: Iterable[int | str]) -> Iterator[list[int]]:
    """The numbers of each document's passages, `{id}#{chunk}`, as they are there; raises as `find_numbers`."""
    with _reading(path) as connection:
        for document in documents:
            between = (f"{document}#", f"{document}$")  # $ follows # in UTF-8
            rows = connection.checked(SELECT_BETWEEN, between, ((int,), (str,)))
            parts = ((number, identifier.rpartition("#")) for number, identifier in rows)
            yield [number for number, (before, _, chunk) in parts if before == str(document) and chunk.isdecimal()]


def _insert(
    connection: SqliteFile, passages: Iterable[tuple[int, Passage]], advance: Callable[[int], None]
) -> None:
    with_pages = names_pages(connection)
    for number, passage in passages:
        values = (number, passage.id, passage.title, passage.text)
        if passage.wikipedia_id is None:
            connection.execute(INSERT_PASSAGE, values)
        else:
            if not with_pages:
                connection.execute(ADD_PAGES)
                with_pages = True
            connection.execute(INSERT_WITH_PAGE, (*values, passage.wikipedia_id))
        advance(1)


@contextmanager
def _writing(path: Path) -> Iterator[SqliteFile]:
    def named(reason: str) -> Exception:
        # SQLite reports the system's refusal in words of its own; the error code is in Python only from 3.11 on.
        if "disk is full" in reason or "disk I/O error" in reason:
            return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return _damaged(path, reason)

    connection = SqliteFile.writing(path, named)
    connection.connection.create_function(PASSAGE_WORDS, 2, passage_words, deterministic=True)
    try:
        yield connection
    finally:
        connection.close()


@contextmanager
def _reading(path: Path) -> Iterator[SqliteFile]:
    connection = SqliteFile.reading(path, partial(_damaged, path))
    try:
        yield connection
    finally:
        connection.close()


def _damaged(path: Path, reason: str) -> StoreError:
    return StoreError(
        str(path), expected="a store's SQLite file", found=reason, fix="see `glimmer-export memory verify`"
    )
