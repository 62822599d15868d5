"""Write the store's SQLite file: every passage and, unless another engine has it, the full-text index, at once."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

from runtime.contract.text_schema import CREATE_INDEX, CREATE_TABLE, FILL_INDEX, INSERT_PASSAGE
from runtime.store import Passage

__all__ = ["write_texts"]

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
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    try:
        _fill(temporary, passages, advance, full_text=full_text)
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _fill(path: Path, passages: Iterable[Passage], advance: Callable[[int], None], *, full_text: bool) -> None:
    create, fill = ((CREATE_INDEX,), FILL_INDEX) if full_text else ((), ())
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        for statement in (*SETTINGS, "BEGIN", CREATE_TABLE, *create):
            connection.execute(statement)
        for number, passage in enumerate(passages):
            connection.execute(INSERT_PASSAGE, (number, passage.id, passage.title, passage.text))
            advance(1)
        for statement in (*fill, "COMMIT"):
            connection.execute(statement)
    except sqlite3.OperationalError as reason:
        # SQLite reports the system's refusal in words of its own; the error code is in Python only from 3.11 on.
        if "disk is full" in str(reason) or "disk I/O error" in str(reason):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from reason
        raise
    finally:
        connection.close()
