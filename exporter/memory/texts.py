"""Write texts of a store: SQLite files of passages, each with a checksum, and with FTS5 the full-text index.

A change of the store does not write in a file that is there: with FTS5 it makes another from a copy.
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

from glimmer_export.exporter.files.whole_file import whole_file
from glimmer_export.runtime.contract import FileEntry, StoreError, TextsEntry
from glimmer_export.runtime.contract.store_layout import FOLDING
from glimmer_export.runtime.contract.text_schema import (
    ADD_PAGES,
    CHECKSUM,
    CREATE_TABLE,
    DELETE_PASSAGE,
    PAGES,
    PASSAGE_WORDS,
    SELECT_NUMBERS,
    SELECT_RANGE,
    TEXT_INDEXES,
    has_column,
    insert_passage,
    lacking,
    text_checksum,
)
from glimmer_export.runtime.passage_texts import PASSAGE_KINDS, sound_passage
from glimmer_export.runtime.retrieval.folding import passage_words
from glimmer_export.runtime.sqlite_file import SqliteFile
from glimmer_export.runtime.store import Passage

__all__ = [
    "PART_PASSAGES", "Numbered", "change_texts", "read_live", "read_texts", "stored_numbers", "write_numbered_texts",
    "write_texts", "write_texts_part",
]  # fmt: skip

MAX_NUMBER = 2**63 - 1
PAGE_BYTES, SMALL_PAGE_BYTES = 4096, 512
"""Of a SQLite file's pages, which a file has whole: so few passages as SMALL_PAGED take a third less in the small."""
SMALL_PAGED = 1024
SETTINGS = (
    # A file that was not finished is thrown away, so nothing need be rolled back; the finished one is synced once.
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
)
PART_PASSAGES = 1 << 18
"""Numbers that a file of texts covers at most, where the index is elsewhere."""
ROW_KINDS = ((int,), *PASSAGE_KINDS)
Numbered = Iterable[tuple[int, Passage]]


def write_texts(
    path: Path, passages: Iterable[Passage], *, advance: Callable[[int], None], folding: int | None = FOLDING
) -> None:
    """Write `path` anew, numbering the passages from 0 in their order; equal passages give equal bytes.

    `advance` is told how many passages came to be written. `folding` is that of FTS5's index, None for no index.

    Raises OSError for a full disk, and what reading `passages` raises; then the file is not there.
    """
    write_numbered_texts(path, enumerate(passages), advance=advance, folding=folding)


def write_numbered_texts(
    path: Path, passages: Numbered, *, advance: Callable[[int], None], folding: int | None,
    page_bytes: int = PAGE_BYTES,
) -> None:
    """Write `path` anew as `write_texts` does, of passages that have numbers, which rise."""
    with whole_file(path) as temporary, _writing(temporary) as connection:
        for statement in (f"PRAGMA page_size = {page_bytes}", *SETTINGS, "BEGIN", CREATE_TABLE):
            connection.execute(statement)
        _insert(connection, passages, advance)
        if folding is not None:
            for statement in (TEXT_INDEXES[folding].create, *TEXT_INDEXES[folding].fill):
                connection.execute(statement)
        connection.execute("COMMIT")


def change_texts(
    source: Path, path: Path, *, deleted: Iterable[int], added: Numbered, first_added: int,
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


def read_texts(
    path: Path, start: int = 0, stop: int = MAX_NUMBER, *, checks: bool = False
) -> Iterator[tuple[int, Passage]]:
    """The passages numbered from `start` to below `stop`, in their order.

    Raises StoreError where the file cannot be read, or if it `checks` where one has not its own checksum.
    """
    with _reading(path) as connection:
        absent = [name for name in (PAGES, CHECKSUM) if not has_column(connection, name)]
        for number, *row in connection.checked(lacking(SELECT_RANGE, absent), (start, stop), ROW_KINDS):
            passage = sound_passage(number, tuple(row), checks=checks)
            if passage is None:
                raise _damaged(path, f"a checksum that does not fit passage number {number}")
            yield number, passage


def stored_numbers(path: Path) -> NDArray[np.int64]:
    """The numbers of all passages, (passages,) int64, rising; raises StoreError if the file cannot be read."""
    with _reading(path) as connection:
        return np.fromiter((number for (number,) in connection.checked(SELECT_NUMBERS, (), [(int,)])), np.int64)


def _insert(connection: SqliteFile, passages: Numbered, advance: Callable[[int], None]) -> None:
    pages, checksums = (has_column(connection, name) for name in (PAGES, CHECKSUM))
    statements = {
        has_page: insert_passage([*([CHECKSUM] if checksums else []), *([PAGES] if has_page else [])])
        for has_page in (False, True)
    }
    for number, passage in passages:
        page = passage.wikipedia_id
        fields = (passage.id, passage.title, passage.text)
        if page is not None and not pages:
            connection.execute(ADD_PAGES)
            pages = True
        checksum = [text_checksum(number, *fields, page)] if checksums else []
        connection.execute(
            statements[page is not None], (number, *fields, *checksum, *([] if page is None else [page]))
        )
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


def write_texts_part(
    store: Path, name: str, passages: Numbered, *, first: int, num_numbers: int,
    advance: Callable[[int], None] = lambda _: None, folding: int | None = None,
) -> TextsEntry:
    """Write the file `name` below `store` anew, texts of passages, and say how the manifest names it.

    Their numbers rise, from `first` on, and are `num_numbers` with those that are not there. `advance` is told how many
    passages were written; `folding` is that of FTS5's index, None for no index. Raises OSError for a full disk, and
    what reading `passages` raises; then the file is not there.
    """
    count = 0

    def written(number: int) -> None:
        nonlocal count
        count += number
        advance(number)

    (store / name).parent.mkdir(parents=True, exist_ok=True)
    page_bytes = SMALL_PAGE_BYTES if folding is None and num_numbers <= SMALL_PAGED else PAGE_BYTES
    write_numbered_texts(store / name, passages, advance=written, folding=folding, page_bytes=page_bytes)
    return TextsEntry(FileEntry.of(store, store / name), first, num_numbers, count, checksums=True)


def read_live(
    place: Callable[[FileEntry], Path], parts: Iterable[TextsEntry], tombstones: NDArray[np.int64], start: int = 0,
    stop: int = MAX_NUMBER,
) -> Iterator[tuple[int, Passage]]:
    """The passages of a store numbered from `start` to below `stop`, by number, without `tombstones` (n,), which rise.

    `place` says where a file is. Raises StoreError where one cannot be read, has another passage than was written, or
    lacks one.
    """
    for part in parts:
        low, high = max(start, part.first), min(stop, part.end)
        if low >= high:
            continue
        dead, live = set(tombstones[slice(*tombstones.searchsorted([low, high]))].tolist()), 0
        for number, passage in read_texts(place(part.file), low, high, checks=part.checksums):
            if number not in dead:
                live += 1
                yield number, passage
        if live != (wanted := high - low - len(dead)):
            raise _damaged(place(part.file), f"{live} passages from number {low} to below {high}, not {wanted}")
