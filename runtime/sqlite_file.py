"""A store's SQLite file: the only module that calls sqlite3's connections, and in which its exceptions become ours.

A file may have been written by anybody. So what its schema could make SQLite do is refused: views and triggers, virtual
tables but the full-text index, and functions that SQLite does not hold for harmless.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line
from glimmer_export.runtime.contract.text_schema import fts5_missing

__all__ = ["SqliteFile"]

Row = tuple[Any, ...]
SCHEMA = "SELECT type, name, tbl_name, sql FROM sqlite_master"
COMPUTED = "SELECT name FROM pragma_table_xinfo('passages') WHERE hidden != 0"
"""Columns that are made of others by an expression, as no store's are."""
TABLE, SEARCHABLE = "passages", "passages_index"
PARTS = tuple(f"{SEARCHABLE}_{part}" for part in ("data", "idx", "content", "docsize", "config"))
"""What FTS5 keeps the full-text index in."""
CREATED = {TABLE: ["CREATE", "TABLE"], SEARCHABLE: ["CREATE", "VIRTUAL", "TABLE"]}
OWN_INDEX = "sqlite_autoindex_passages_1"
"""SQLite's own, of the ids: it has no statement."""
LIMITS = {"LENGTH": 64 << 20, "ATTACHED": 0, "TRIGGER_DEPTH": 1}
"""What a file can make SQLite take for one value, of which the largest is a passage of 1 MiB; the others are unused."""
BUILTINS = (MemoryError, UnicodeDecodeError)
"""What sqlite3 raises besides its own: for want of memory, and for a message that quotes bytes of the file."""


class SqliteFile:
    """A connection to a file, of one thread at a time.

    `named` makes an error of SQLite's reason, which is raised if the file is damaged, or its schema has something
    that no store's has; StoreError if this SQLite has no FTS5.
    """

    def __init__(self, target: str, named: Callable[[str], Exception], *, uri: bool) -> None:
        """For `reading` and `writing`."""
        self._named = named
        self._errors = LibraryErrors(_is_own, self._error)
        with self._errors:
            # One thread at a time has it, though not always the same one.
            self.connection = sqlite3.connect(target, uri=uri, check_same_thread=False, isolation_level=None)
        try:
            self._set_up(reads_only=uri)
            self._check_schema()
        except BaseException:
            self.connection.close()
            raise

    @classmethod
    def reading(cls, path: Path, named: Callable[[str], Exception]) -> SqliteFile:
        """To a finished file, which nothing may write: SQLite need not lock it or look for changes."""
        return cls(f"{path.resolve().as_uri()}?mode=ro&immutable=1", named, uri=True)

    @classmethod
    def writing(cls, path: Path, named: Callable[[str], Exception]) -> SqliteFile:
        """To a file that is made, or was copied to be changed; nothing is written before a statement says so."""
        return cls(str(path), named, uri=False)

    def execute(self, statement: str, values: Sequence[object] = ()) -> Iterator[Row]:
        """The rows of a statement, read as they are asked for; if there are none, what it does is done at once."""
        with self._errors:
            cursor = self.connection.execute(statement, values)
            first = cursor.fetchone()
        return self._rest(cursor, first)

    def row(self, statement: str, values: Sequence[object] = ()) -> Row | None:
        """The first row of a statement, None if it has none."""
        with self._errors:
            return cast("Row | None", self.connection.execute(statement, values).fetchone())

    def checked(
        self, statement: str, values: Sequence[object], kinds: Sequence[tuple[type, ...]]
    ) -> Iterator[Row]:
        """The rows of a statement, whose values are of the `kinds` of its columns, or the file's error is raised."""
        for row in self.execute(statement, values):
            for value, allowed in zip(row, kinds, strict=True):
                if type(value) not in allowed:
                    raise self._named(f"{type(value).__name__} in the place of {allowed[0].__name__}")
            yield row

    def number(self, statement: str, values: Sequence[object] = ()) -> int:
        """The integer that a statement counts."""
        ((number,),) = self.checked(statement, values, [(int,)])
        return cast("int", number)

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def _rest(self, cursor: sqlite3.Cursor, row: Row | None) -> Iterator[Row]:
        while row is not None:
            yield row
            with self._errors:
                row = cursor.fetchone()

    def _set_up(self, *, reads_only: bool) -> None:
        """Let the schema call no function that could do harm, and have every cell's size checked before it is read."""
        for statement in ("trusted_schema = OFF", "cell_size_check = ON", f"query_only = {int(reads_only)}"):
            self.row(f"PRAGMA {statement}")
        if hasattr(self.connection, "setlimit"):  # from Python 3.11 on
            for name, limit in LIMITS.items():
                self.connection.setlimit(getattr(sqlite3, f"SQLITE_LIMIT_{name}"), limit)

    def _check_schema(self) -> None:
        """Raise if there is a view, a trigger, or a table or an index other than a store's."""
        for kind, name, table, sql in self.execute(SCHEMA):
            words = str(sql).upper().split()
            if name in CREATED:
                ours = kind == "table" and words[: len(CREATED[name])] == CREATED[name]
            elif name in PARTS:
                ours = kind == "table" and words[:2] == ["CREATE", "TABLE"]
            else:
                ours = kind == "index" and (name, table, sql) == (OWN_INDEX, TABLE, None)
            if not ours:
                found = "virtual table" if words[1:2] == ["VIRTUAL"] else kind
                raise self._named(f"{'an' if found == 'index' else 'a'} {found} {name}")
        if (column := self.row(COMPUTED)) is not None:
            raise self._named(f"a computed column {column[0]}")

    def _error(self, raised: BaseException) -> Exception:
        return fts5_missing() if "no such module: fts5" in str(raised) else self._named(first_line(raised))


def _is_own(kind: type[BaseException]) -> bool:
    """Not ProgrammingError and InterfaceError, which are a bug of the caller's."""
    own = issubclass(kind, sqlite3.DatabaseError) and not issubclass(kind, sqlite3.ProgrammingError)
    return own or kind in BUILTINS
