"""Write the store's SQLite file, every passage and FTS5's index at once; or the index of another engine beside it.

A change of the store does not write in the file that is there: it makes another from a copy.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import unicodedata
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.files.whole_file import plain_mode, whole_file
from glimmer_export.runtime.contract import FileEntry, IndexEntry, OptionError, OutputError, StoreError, file_digest
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line
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
    require_fts5,
    without_pages,
)
from glimmer_export.runtime.passage_texts import PASSAGE_KINDS
from glimmer_export.runtime.retrieval.folding import passage_words
from glimmer_export.runtime.retrieval.tantivy_bm25 import (
    NUMBER,
    PASSAGE,
    WORD_FORMS,
    import_tantivy,
    index_schema,
    indexed_text,
    tantivy_errors,
    word_forms,
)
from glimmer_export.runtime.sqlite_file import SqliteFile
from glimmer_export.runtime.store import Passage

__all__ = [
    "AUTO", "FTS5", "TANTIVY", "change_texts", "choose_engine", "find_chunks", "find_numbers", "index_name",
    "read_texts", "require_engine", "stored_numbers", "write_index", "write_numbered_texts", "write_texts",
]  # fmt: skip

MAX_NUMBER = 2**63 - 1
SETTINGS = (
    "PRAGMA page_size = 4096",
    # A file that was not finished is thrown away, so nothing need be rolled back; the finished one is synced once.
    "PRAGMA journal_mode = OFF",
    "PRAGMA synchronous = OFF",
)
FTS5, TANTIVY, AUTO = "fts5", "tantivy", "auto"
CHOICES = (AUTO, FTS5, TANTIVY)
MOST_FOR_FTS5 = 100_000
"""Passages up to which FTS5 answers in some milliseconds; at a million a question takes 20 times as long."""
WRITER_BYTES = 256 << 20
"""What is indexed in memory before it is written as a segment."""


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
    """The numbers of all passages, (passages,) int64, rising; raises StoreError if the file cannot be read."""
    with _reading(path) as connection:
        return np.fromiter((number for (number,) in connection.checked(SELECT_NUMBERS, (), [(int,)])), np.int64)


def find_numbers(path: Path, ids: Iterable[int | str | None]) -> Iterator[list[int]]:
    """The number of each id, or none, in a list; raises StoreError if the file cannot be read."""
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


def choose_engine(choice: str, num_passages: int) -> str:
    """The engine for so many passages; raises OptionError for a choice that is none of CHOICES."""
    if choice not in CHOICES:
        raise OptionError("index", expected=f"one of {', '.join(CHOICES)}", found=choice, fix="choose one of these")
    if choice != AUTO:
        return choice
    return TANTIVY if num_passages > MOST_FOR_FTS5 else FTS5


def require_engine(engine: str) -> None:
    """Raise MissingExtraError or StoreError if this Python cannot write the engine's index: before any work."""
    if engine == TANTIVY:
        import_tantivy()
    else:
        require_fts5()


def index_name(generation: int) -> str:
    """Folder of a generation's index below its store, if it has files of its own."""
    return f"index-{generation:05d}"


def write_index(
    store: Path, generation: int, passages: Iterable[tuple[int, Passage]], engine: str, *,
    advance: Callable[[int], None], folding: int = FOLDING,
) -> IndexEntry:
    """Index numbered passages below `store`, anew, and say how its manifest names the index, which is of `folding`.

    Numbers rise, and need not be contiguous. `fts5` has its index in the file of texts, and nothing is written.
    `advance` is told how many passages came to be indexed. Raises OutputError for a full disk, MissingExtraError
    without the engine's package, and what reading `passages` raises; the next call removes what is left then.
    """
    unicode = unicodedata.unidata_version if folding else None
    if engine == FTS5:
        return IndexEntry(FTS5, (), folding, unicode)
    directory = store / index_name(generation)
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir()
    _write_tantivy(directory, passages, folding, advance)
    _name_segments(directory)
    files = (
        FileEntry.of(store, path)
        for path in _index_files(directory)
    )
    return IndexEntry(TANTIVY, tuple(files), folding, unicode)


def _write_tantivy(
    directory: Path, passages: Iterable[tuple[int, Passage]], folding: int, advance: Callable[[int], None]
) -> None:
    tantivy = import_tantivy()
    index = tantivy.Index(index_schema(), str(directory))
    index.register_tokenizer(WORD_FORMS, word_forms(folding))
    with _index_errors(directory):
        writer: Any = index.writer(WRITER_BYTES, 1)  # one thread, which leaves the other cores to others
    for number, passage in passages:
        document = tantivy.Document()
        document.add_unsigned(NUMBER, number)
        document.add_text(PASSAGE, indexed_text(passage.title, passage.text, folding))
        with _index_errors(directory):
            writer.add_document(document)
        advance(1)
    with _index_errors(directory):
        writer.commit()
        writer.wait_merging_threads()


def _name_segments(directory: Path) -> None:
    """Name each segment by what is in it, where tantivy draws a name by chance: equal passages give equal files."""
    meta = directory / "meta.json"
    data = json.loads(meta.read_bytes())
    for segment in data["segments"]:
        drawn = segment["segment_id"].replace("-", "")
        paths = sorted(directory.glob(f"{drawn}.*"))
        content = " ".join(f"{path.suffix} {file_digest(path)}" for path in paths)
        name = hashlib.sha256(content.encode()).hexdigest()[: len(drawn)]
        segment["segment_id"] = str(uuid.UUID(name))
        for path in paths:
            path.rename(path.with_name(name + path.name[len(drawn) :]))
    # tantivy's order, where those of the same size follow each other by their names.
    data["segments"].sort(key=lambda segment: (-segment["max_doc"], segment["segment_id"]))
    meta.write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _index_files(directory: Path) -> list[Path]:
    """What a reader needs, by name; the writer's locks, its list of files, and parts that were merged are removed."""
    meta = directory / "meta.json"
    segments = json.loads(meta.read_bytes())["segments"]
    needed = {segment["segment_id"].replace("-", "") for segment in segments} | {meta.stem}
    files, mode = [], plain_mode(directory)
    for path in sorted(directory.iterdir()):
        if path.stem in needed:
            path.chmod(mode)  # tantivy keeps some for its user alone
            files.append(path)
        else:
            path.unlink()
    return files


def _index_errors(directory: Path) -> LibraryErrors:
    """Name what tantivy refuses: its threads write, and of a full disk it says only that one of them died."""
    return tantivy_errors(
        lambda raised: OutputError(
            f"index {directory}", expected="room on the disk, and a place that can be written",
            found=first_line(raised), fix="free some space, or write elsewhere, and run the command again",
        )
    )
