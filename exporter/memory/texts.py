"""Write the store's SQLite file: every passage and, unless another engine has it, the full-text index, at once.

A change of the store does not write in the file that is there: it makes another from a copy.
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from runtime.contract import StoreError
from runtime.contract.text_schema import (
    ADD_PAGES,
    CREATE_INDEX,
    CREATE_TABLE,
    DELETE_PASSAGE,
    FILL_INDEX,
    FORGET_PASSAGE,
    INDEX_FROM,
    INSERT_PASSAGE,
    INSERT_WITH_PAGE,
    SELECT_BETWEEN,
    SELECT_NUMBER,
    SELECT_NUMBERS,
    SELECT_RANGE,
    names_pages,
    without_pages,
)
from runtime.store import Passage

__all__ = ["change_texts", "find_chunks", "find_numbers", "read_texts", "stored_numbers", "write_texts"]

MAX_NUMBER = 2**63 - 1

SETTINGS = (
    "PRAGMA page_size = 4096",
    # A file that was not finished is thrown away, so nothing need be rolled back; the finished one is synced once.
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
)


def write_texts(
    path: Path, passages: Iterable[Passage], *, advance: Callable[[int], None], full_text: bool = True
) -> None:
    """Write `path` anew, numbering the passages from 0 in their order; equal passages give equal bytes.

    `advance` is told how many passages came to be written. `full_text`: with the index of FTS5.

    Raises OSError for a full disk, and what reading `passages` raises; then the file is not there.
    """
    with _whole(path) as temporary, _writing(temporary) as connection:
        create, fill = ((CREATE_INDEX,), FILL_INDEX) if full_text else ((), ())
        for statement in (*SETTINGS, "BEGIN", CREATE_TABLE, *create):
            connection.execute(statement)
        _insert(connection, enumerate(passages), advance)
        for statement in (*fill, "COMMIT"):
            connection.execute(statement)


def change_texts(
    source: Path, path: Path, *, deleted: Iterable[int], added: Iterable[tuple[int, Passage]], first_added: int,
    advance: Callable[[int], None], full_text: bool,
) -> None:
    """Write `path`: what `source` holds, without the numbers `deleted`, with `added`, numbered from `first_added` on.

    What is deleted can no longer be found or read; its bytes may still lie in the file. `advance`, `full_text` and the
    errors are as in `write_texts`.
    """
    with _whole(path) as temporary:
        shutil.copyfile(source, temporary)
        with _writing(temporary) as connection:
            for statement in (*SETTINGS, "BEGIN"):
                connection.execute(statement)
            for number in deleted:
                for statement in (FORGET_PASSAGE, DELETE_PASSAGE) if full_text else (DELETE_PASSAGE,):
                    connection.execute(statement, (number,))
                advance(1)
            _insert(connection, added, advance)
            if full_text:
                connection.execute(INDEX_FROM, (first_added,))
            connection.execute("COMMIT")


def read_texts(path: Path, start: int = 0, stop: int = MAX_NUMBER) -> Iterator[tuple[int, Passage]]:
    """The passages numbered from `start` to below `stop`, in their order; StoreError where the file cannot be read."""
    with _reading(path) as connection:
        statement = SELECT_RANGE if names_pages(connection) else without_pages(SELECT_RANGE)
        for number, *row in connection.execute(statement, (start, stop)):
            yield number, Passage(*row)


def stored_numbers(path: Path) -> NDArray[np.int64]:
    """The numbers of all passages, (passages,) int64, rising; raises StoreError where the file cannot be read."""
    with _reading(path) as connection:
        return np.fromiter((number for (number,) in connection.execute(SELECT_NUMBERS)), np.int64)


def find_numbers(path: Path, ids: Iterable[int | str | None]) -> Iterator[list[int]]:
    """The number of each id, or none, in a list; raises StoreError where the file cannot be read."""
    with _reading(path) as connection:
        for value in ids:
            yield [number for (number,) in connection.execute(SELECT_NUMBER, (value,))]


def find_chunks(path: Path, documents: Iterable[int | str]) -> Iterator[list[int]]:
    """The numbers of each document's passages, `{id}#{chunk}`, as they are there; raises as `find_numbers`."""
    with _reading(path) as connection:
        for document in documents:
            rows = connection.execute(SELECT_BETWEEN, (f"{document}#", f"{document}$"))  # $ follows # in UTF-8
            parts = ((number, identifier.rpartition("#")) for number, identifier in rows)
            yield [number for number, (before, _, chunk) in parts if before == str(document) and chunk.isdecimal()]


def _insert(
    connection: sqlite3.Connection, passages: Iterable[tuple[int, Passage]], advance: Callable[[int], None]
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
def _whole(path: Path) -> Iterator[Path]:
    """Yield where to write a file that appears at `path` once it is whole."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        yield temporary
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        yield connection
    except sqlite3.OperationalError as reason:
        # SQLite reports the system's refusal in words of its own; the error code is in Python only from 3.11 on.
        if "disk is full" in str(reason) or "disk I/O error" in str(reason):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from reason
        raise
    finally:
        connection.close()


@contextmanager
def _reading(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro&immutable=1", uri=True)
    try:
        yield connection
    except sqlite3.DatabaseError as reason:
        raise StoreError(
            str(path), expected="a store's SQLite file", found=str(reason),
            fix="see `glimmer-export memory verify`",
        ) from None
    finally:
        connection.close()
