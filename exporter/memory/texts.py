"""Write texts of a store: SQLite files of passages, and the full-text index, FTS5's in them or tantivy's beside them.

A change of the store does not write in a file that is there: with FTS5 it makes another from a copy.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.files.whole_file import plain_mode, whole_file
from glimmer_export.runtime.contract import FileEntry, IndexEntry, OptionError, OutputError, StoreError, file_digest
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line
from glimmer_export.runtime.contract.store_layout import FOLDING, SegmentEntry, segment_name, texts_name
from glimmer_export.runtime.contract.text_schema import (
    ADD_PAGES,
    CREATE_TABLE,
    DELETE_PASSAGE,
    INSERT_PASSAGE,
    INSERT_WITH_PAGE,
    PASSAGE_WORDS,
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
from glimmer_export.runtime.retrieval.tantivy_segments import META, PART_FILES, read_list
from glimmer_export.runtime.sqlite_file import SqliteFile
from glimmer_export.runtime.store import Passage

__all__ = [
    "AUTO", "FTS5", "MOST_FOR_FTS5", "SEGMENT_PASSAGES", "TANTIVY", "change_texts", "choose_engine",
    "engine_warnings", "index_entry", "read_live", "read_texts", "require_engine", "stored_numbers",
    "write_numbered_texts", "write_segment", "write_segments", "write_texts",
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
FTS5, TANTIVY, AUTO = "fts5", "tantivy", "auto"
CHOICES = (AUTO, FTS5, TANTIVY)
MOST_FOR_FTS5 = 100_000
"""Passages up to which FTS5 answers in some milliseconds; at a million a question takes 20 times as long."""
WRITER_BYTES, SMALL_WRITER_BYTES = 256 << 20, 15_000_000
"""What is indexed in memory before it is written as a part: the least that tantivy takes is for SMALL segments."""
SMALL = 4096
SEGMENT_PASSAGES = 1 << 20
"""Numbers that a segment covers at most: what one deleted passage costs, when its segment is written anew."""
SEGMENT_TEXTS = "texts.sqlite"
NONE_LEFT: tuple[int, Iterable[tuple[int, Passage]]] = -1, ()


def write_texts(
    path: Path, passages: Iterable[Passage], *, advance: Callable[[int], None], folding: int | None = FOLDING
) -> None:
    """Write `path` anew, numbering the passages from 0 in their order; equal passages give equal bytes.

    `advance` is told how many passages came to be written. `folding` is that of FTS5's index, None for no index.

    Raises OSError for a full disk, and what reading `passages` raises; then the file is not there.
    """
    write_numbered_texts(path, enumerate(passages), advance=advance, folding=folding)


def write_numbered_texts(
    path: Path, passages: Iterable[tuple[int, Passage]], *, advance: Callable[[int], None], folding: int | None,
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


def engine_warnings(engine: str, num_passages: int) -> tuple[str, ...]:
    """A warning where a store has grown past what its engine is for."""
    if engine != FTS5 or num_passages <= MOST_FOR_FTS5:
        return ()
    said = (
        f"{num_passages:,} passages are found by FTS5, which is for {MOST_FOR_FTS5:,} at most: each change writes all "
        "texts again, and a question takes the longer the more there are; `glimmer-export memory index --engine "
        "tantivy` moves the store to tantivy"
    )
    return (said,)


def require_engine(engine: str) -> None:
    """Raise MissingExtraError or StoreError if this Python cannot write the engine's index: before any work."""
    if engine == TANTIVY:
        import_tantivy()
    else:
        require_fts5()


def index_entry(engine: str, folding: int = FOLDING) -> IndexEntry:
    """How a manifest names an index that is made now."""
    return IndexEntry(engine, folding, unicodedata.unidata_version if folding else None)


def write_segments(
    store: Path, generation: int, passages: Iterable[tuple[int, Passage]], num_numbers: int, engine: str, *,
    advance: Callable[[int], None], folding: int = FOLDING,
) -> tuple[SegmentEntry, ...]:
    """Write texts and full-text index of all passages of a store anew below it, and say what its manifest names.

    `passages` have numbers below `num_numbers`, which rise and need not be contiguous. FTS5 has one segment, whose
    index lies in the file of texts; tantivy has one for every SEGMENT_PASSAGES numbers. `advance` is told how many
    passages were written. Raises as `write_segment`, and what reading `passages` raises.
    """
    if engine == FTS5:
        path, written = store / texts_name(generation), 0

        def count(number: int) -> None:
            nonlocal written
            written += number
            advance(number)

        write_numbered_texts(path, passages, advance=count, folding=folding)
        return (SegmentEntry(0, num_numbers, written, FileEntry.of(store, path)),)
    segments = []
    ranges = groupby(passages, lambda numbered: numbered[0] // SEGMENT_PASSAGES)
    following, part = next(ranges, NONE_LEFT)
    for place, first in enumerate(range(0, max(num_numbers, 1), SEGMENT_PASSAGES)):
        here = place == following
        segment = write_segment(
            store, segment_name(generation, place), part if here else (), first=first,
            num_numbers=min(num_numbers - first, SEGMENT_PASSAGES), folding=folding, advance=advance,
        )
        segments.append(segment)
        if here:
            following, part = next(ranges, NONE_LEFT)
    return tuple(segments)


def write_segment(
    store: Path, name: str, passages: Iterable[tuple[int, Passage]], *, first: int, num_numbers: int, folding: int,
    advance: Callable[[int], None],
) -> SegmentEntry:
    """Write the folder `name` below `store` anew: texts of the passages, and their index by tantivy.

    Their numbers rise, from `first` on, and are `num_numbers` with those that are not there. `advance` is told how
    many passages were written. Equal passages give equal files, up to so many as tantivy takes in parts and joins.
    Raises OutputError for a full disk, MissingExtraError without tantivy, and what reading `passages` raises; the next
    call removes what is left then.
    """
    folder = store / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    count = 0

    def written(number: int) -> None:
        nonlocal count
        count += number

    texts = folder / SEGMENT_TEXTS
    page_bytes = SMALL_PAGE_BYTES if num_numbers <= SMALL_PAGED else PAGE_BYTES
    write_numbered_texts(texts, passages, advance=written, folding=None, page_bytes=page_bytes)
    documents = _write_tantivy(folder, read_texts(texts), count, folding, advance)
    files = sorted(path for path in folder.iterdir() if path != texts)
    index = tuple(FileEntry.of(store, path) for path in files)
    return SegmentEntry(first, num_numbers, count, FileEntry.of(store, texts), index, documents)


def read_live(
    store: Path, segments: Iterable[SegmentEntry], tombstones: NDArray[np.int64], start: int = 0,
    stop: int = MAX_NUMBER,
) -> Iterator[tuple[int, Passage]]:
    """The passages of a store numbered from `start` to below `stop`, by number, without `tombstones` (n,), which rise.

    Raises StoreError where a file cannot be read.
    """
    for segment in segments:
        low, high = max(start, segment.first), min(stop, segment.end)
        if low >= high:
            continue
        dead = set(tombstones[slice(*tombstones.searchsorted([low, high]))].tolist())
        for number, passage in read_texts(store / segment.texts.path, low, high):
            if number not in dead:
                yield number, passage


def _write_tantivy(
    directory: Path, passages: Iterable[tuple[int, Passage]], num_passages: int, folding: int,
    advance: Callable[[int], None],
) -> tuple[int, ...]:
    """Index passages into the files that a reader needs, and say how many documents each part of the index has."""
    tantivy = import_tantivy()
    index = tantivy.Index(index_schema(), str(directory))
    index.register_tokenizer(WORD_FORMS, word_forms(folding))
    with _index_errors(directory):
        # One thread, which leaves the other cores to others.
        writer: Any = index.writer(SMALL_WRITER_BYTES if num_passages <= SMALL else WRITER_BYTES, 1)
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
    documents = read_list(directory / META)
    _keep_parts(directory, documents)
    named = {_name_part(directory, drawn): count for drawn, count in documents.items()}
    return tuple(count for _, count in sorted(named.items()))


def _keep_parts(directory: Path, documents: Iterable[str]) -> None:
    """Remove the writer's locks and lists, and parts that were merged into others."""
    needed, mode = set(documents), plain_mode(directory)
    for path in sorted(directory.iterdir()):
        if path.stem in needed and path.suffix in PART_FILES:
            path.chmod(mode)  # tantivy keeps some for its user alone
        elif path.name != SEGMENT_TEXTS:
            path.unlink()


def _name_part(directory: Path, drawn: str) -> str:
    """Name a part by what is in it, where tantivy draws a name by chance: equal passages give equal files."""
    paths = sorted(directory.glob(f"{drawn}.*"))
    content = " ".join(f"{path.suffix} {file_digest(path)}" for path in paths)
    name = hashlib.sha256(content.encode()).hexdigest()[: len(drawn)]
    for path in paths:
        path.rename(path.with_name(name + path.suffix))
    return name


def _index_errors(directory: Path) -> LibraryErrors:
    """Name what tantivy refuses: its threads write, and of a full disk it says only that one of them died."""
    return tantivy_errors(
        lambda raised: OutputError(
            f"index {directory}", expected="room on the disk, and a place that can be written",
            found=first_line(raised), fix="free some space, or write elsewhere, and run the command again",
        )
    )
