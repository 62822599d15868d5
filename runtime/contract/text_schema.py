"""The store's SQLite file: passages by number, and a full-text index over them. Shared by its writer and its reader."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from glimmer_export.runtime.contract.errors import StoreError

__all__ = [
    "ADD_PAGES",
    "CHECKSUM",
    "COUNT_MATCHES",
    "COUNT_PASSAGES",
    "CREATE_TABLE",
    "DELETE_PASSAGE",
    "FIRST_MATCHES",
    "PAGES",
    "PASSAGE_WORDS",
    "SELECT_BETWEEN",
    "SELECT_BOUNDS",
    "SELECT_NUMBER",
    "SELECT_NUMBERS",
    "SELECT_PASSAGE",
    "SELECT_RANGE",
    "TEXT_INDEXES",
    "TextIndex",
    "fts5_missing",
    "has_column",
    "insert_passage",
    "is_id",
    "lacking",
    "require_fts5",
    "text_checksum",
]

PAGES, CHECKSUM = "wikipedia_id", "checksum"
# A column without a type keeps what it is given: the ids 1 and "1" stay two ids.
CREATE_TABLE = """
CREATE TABLE passages (
    number INTEGER PRIMARY KEY, id NOT NULL UNIQUE, title TEXT NOT NULL, text TEXT NOT NULL, checksum INTEGER NOT NULL
)
"""
# Only if a passage says what Wikipedia page it is of: other files are as they were before there was the column.
ADD_PAGES = "ALTER TABLE passages ADD COLUMN wikipedia_id TEXT"
DELETE_PASSAGE = "DELETE FROM passages WHERE number = ?"
COUNT_PASSAGES = "SELECT count(*) FROM passages"
SELECT_BOUNDS = "SELECT (SELECT min(number) FROM passages), (SELECT max(number) FROM passages)"
SELECT_NUMBERS = "SELECT number FROM passages ORDER BY number"
SELECT_NUMBER = "SELECT number FROM passages WHERE id = ?"
SELECT_PASSAGE = "SELECT id, title, text, wikipedia_id, checksum FROM passages WHERE number = ?"
SELECT_RANGE = """
SELECT number, id, title, text, wikipedia_id, checksum FROM passages WHERE number >= ? AND number < ? ORDER BY number
"""
SELECT_BETWEEN = "SELECT number, id FROM passages WHERE id >= ? AND id < ?"


class ExecutesSql(Protocol):
    """What runs statements on a file: a connection of sqlite3's does, and what wraps one."""

    def execute(self, statement: str, /) -> Iterable[Any]:
        """The rows of a statement."""
        ...


@dataclass(frozen=True)
class TextIndex:
    """Statements on the full-text index of one folding (IndexEntry), which stands beside the passages.

    `fill` an empty one from all passages; `add` those numbered from ? on; `forget` number ?, whose passage must still
    be there, as the index is told what it is to forget; `search` for ?, the best ? of them.
    """

    create: str
    fill: tuple[str, ...]
    add: str
    forget: str
    search: str


PASSAGE_WORDS = "passage_words"
"""The SQL function of a title and a text that the statements on a folded index call, and their connection must have."""
OPTIMIZE = "INSERT INTO passages_index (passages_index) VALUES ('optimize')"
# bm25() is negative, better is lower; its arguments, if there are any, are the weights of title and text.
SEARCH = """
SELECT rowid, -bm25(passages_index{weights}) AS score FROM passages_index WHERE passages_index MATCH ?
ORDER BY score DESC, rowid LIMIT ?
"""
COUNT_MATCHES = "SELECT count(*) FROM passages_index WHERE passages_index MATCH ?"
FIRST_MATCHES = "SELECT rowid FROM passages_index WHERE passages_index MATCH ? ORDER BY rowid LIMIT ?"
UNFOLDED_INDEX = TextIndex(
    # The index refers to the table for its text, so that no text is stored twice.
    create="""
CREATE VIRTUAL TABLE passages_index USING fts5(
    title, text, content='passages', content_rowid='number', tokenize='porter unicode61 remove_diacritics 2'
)
""",
    fill=("INSERT INTO passages_index (passages_index) VALUES ('rebuild')", OPTIMIZE),
    add="INSERT INTO passages_index (rowid, title, text) SELECT number, title, text FROM passages WHERE number >= ?",
    forget="""
INSERT INTO passages_index (passages_index, rowid, title, text)
SELECT 'delete', number, title, text FROM passages WHERE number = ?
""",
    search=SEARCH.format(weights=", 2.0, 1.0"),
)
FOLDED_INDEX = TextIndex(
    # The index holds no text at all. Its tokenizer takes any character that is not ASCII for part of a word.
    create="CREATE VIRTUAL TABLE passages_index USING fts5(words, content='', tokenize='porter ascii')",
    fill=(
        f"INSERT INTO passages_index (rowid, words) SELECT number, {PASSAGE_WORDS}(title, text) FROM passages",
        OPTIMIZE,
    ),
    add=f"""
INSERT INTO passages_index (rowid, words) SELECT number, {PASSAGE_WORDS}(title, text) FROM passages WHERE number >= ?
""",
    forget=f"""
INSERT INTO passages_index (passages_index, rowid, words)
SELECT 'delete', number, {PASSAGE_WORDS}(title, text) FROM passages WHERE number = ?
""",
    search=SEARCH.format(weights=""),
)
TEXT_INDEXES = {0: UNFOLDED_INDEX, 1: FOLDED_INDEX}
"""By folding."""


def has_column(file: ExecutesSql, name: str) -> bool:
    """Whether the table of passages has a column, PAGES or CHECKSUM, that not every file has."""
    columns = file.execute(f"SELECT 1 FROM pragma_table_info('passages') WHERE name = '{name}'")
    return any(True for _ in columns)


def insert_passage(columns: Sequence[str]) -> str:
    """The statement that writes a passage of a number, an id, a title and a text, and of such further columns."""
    names = ["number", "id", "title", "text", *columns]
    return f"INSERT INTO passages ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


def lacking(statement: str, columns: Iterable[str]) -> str:
    """A statement that reads passages, for a file without these columns: nothing stands in their places."""
    for column in columns:
        statement = statement.replace(column, "NULL")
    return statement


def text_checksum(number: int, identifier: int | str | None, title: str, text: str, page: str | None) -> int:
    """The CRC-32 (zlib) of a passage: its number, whether its id is an integer, lengths, and the fields in UTF-8."""
    name, length = str(identifier), -1 if page is None else len(page)
    head = f"{number},{type(identifier) is int:d},{len(name)},{len(title)},{len(text)},{length};"
    return zlib.crc32(f"{head}{name}{title}{text}{page or ''}".encode("utf-8", "surrogatepass"))


def is_id(value: object) -> bool:
    """Whether a value can be a passage's id: a string that UTF-8 can write, or a signed integer of 64 bits."""
    if type(value) is str:
        return not any("\ud800" <= character <= "\udfff" for character in value)
    return type(value) is int and -(2**63) <= value < 2**63


def fts5_missing() -> StoreError:
    """The error for a device whose SQLite cannot search text."""
    return StoreError(
        "module sqlite3 of this Python", expected="an SQLite with the FTS5 extension",
        found=f"SQLite {sqlite3.sqlite_version} without it", fix="use a Python that is built with FTS5",
    )


def require_fts5() -> None:
    """Raise StoreError if this Python's SQLite has no full-text search."""
    connection = sqlite3.connect(":memory:")
    try:
        connection.execute("CREATE VIRTUAL TABLE probe USING fts5(text)")
    except sqlite3.OperationalError:
        raise fts5_missing() from None
    finally:
        connection.close()
