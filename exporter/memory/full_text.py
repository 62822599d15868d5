"""The full-text index of a store's texts: FTS5's lies in their file, tantivy's is written in segments beside them."""

from __future__ import annotations

import hashlib
import shutil
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, groupby, islice
from pathlib import Path
from typing import Any

from glimmer_export.exporter.files.whole_file import plain_mode
from glimmer_export.exporter.memory.texts import (
    PART_PASSAGES,
    Numbered,
    read_texts,
    write_texts_part,
)
from glimmer_export.runtime.contract import (
    FileEntry,
    IndexEntry,
    OptionError,
    OutputError,
    SegmentEntry,
    TextsEntry,
    file_digest,
)
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line
from glimmer_export.runtime.contract.store_layout import FOLDING, segment_name, texts_name, texts_part_name
from glimmer_export.runtime.contract.text_schema import require_fts5
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

__all__ = [
    "AUTO", "FTS5", "MOST_FOR_FTS5", "SEGMENT_PASSAGES", "TANTIVY", "choose_engine", "engine_warnings", "index_entry",
    "require_engine", "write_segment", "write_segments", "write_texts_and_index",
]  # fmt: skip

FTS5, TANTIVY, AUTO = "fts5", "tantivy", "auto"
CHOICES = (AUTO, FTS5, TANTIVY)
MOST_FOR_FTS5 = 100_000
"""Passages up to which FTS5 answers in some milliseconds; at a million a question takes 20 times as long."""
WRITER_BYTES, SMALL_WRITER_BYTES = 256 << 20, 15_000_000
"""What is indexed in memory before it is written as a part: the least that tantivy takes is for SMALL segments."""
SMALL = 4096
SEGMENT_PASSAGES = 1 << 18
"""Numbers that a segment covers at most: what one deleted passage costs, when its segment is written anew."""
NONE_LEFT: tuple[int, Numbered] = -1, ()


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


def write_texts_and_index(
    store: Path, generation: int, passages: Numbered, num_numbers: int, engine: str, *,
    advance: Callable[[int], None], folding: int = FOLDING,
) -> tuple[tuple[TextsEntry, ...], tuple[SegmentEntry, ...]]:
    """Write texts and full-text index of all passages of a store anew below it, and say what its manifest names.

    `passages` have numbers below `num_numbers`, which rise and need not be contiguous. FTS5 has one file, with the
    index in it; with tantivy there is a file of texts for every PART_PASSAGES numbers, and a segment for every
    SEGMENT_PASSAGES. `advance` is told how many passages were written. Raises as `write_segment`, and what reading
    `passages` raises.
    """
    if engine == FTS5:
        only = write_texts_part(
            store, texts_name(generation), passages, first=0, num_numbers=num_numbers, advance=advance, folding=folding
        )
        return (only,), ()
    texts = tuple(
        write_texts_part(store, texts_part_name(generation, place), part, first=first, num_numbers=count)
        for place, (first, count, part) in enumerate(_cut(passages, num_numbers, PART_PASSAGES))
    )
    read = chain.from_iterable(read_texts(store / part.file.path, checks=True) for part in texts)
    return texts, write_segments(store, generation, read, num_numbers, advance=advance, folding=folding)


def write_segments(
    store: Path, generation: int, passages: Numbered, num_numbers: int, *, advance: Callable[[int], None],
    folding: int = FOLDING,
) -> tuple[SegmentEntry, ...]:
    """Write tantivy's index of all passages of a store anew below it; as `write_texts_and_index`."""
    return tuple(
        write_segment(
            store, segment_name(generation, place), part, first=first, num_numbers=count, folding=folding,
            advance=advance,
        )
        for place, (first, count, part) in enumerate(_cut(passages, num_numbers, SEGMENT_PASSAGES))
    )


def write_segment(
    store: Path, name: str, passages: Numbered, *, first: int, num_numbers: int, folding: int,
    advance: Callable[[int], None],
) -> SegmentEntry:
    """Write the folder `name` below `store` anew: tantivy's index of the passages.

    Their numbers rise, from `first` on, and are `num_numbers` with those that are not there. `advance` is told how
    many passages were written. Equal passages give equal files, up to so many as tantivy takes in parts and joins.
    Raises OutputError for a full disk, MissingExtraError without tantivy, and what reading `passages` raises; the next
    call removes what is left then.
    """
    folder = store / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    numbered = iter(passages)
    some = list(islice(numbered, SMALL + 1))
    small = len(some) <= SMALL
    documents = _write_tantivy(folder, chain(some, numbered), small=small, folding=folding, advance=advance)
    files = tuple(FileEntry.of(store, path) for path in sorted(folder.iterdir()))
    if not files:
        folder.rmdir()
    return SegmentEntry(first, num_numbers, sum(documents), files, documents)


def _cut(passages: Numbered, num_numbers: int, most: int) -> Iterator[tuple[int, int, Numbered]]:
    """Ranges of at most so many numbers: the first, how many there are, and their passages, to be read in order."""
    ranges = groupby(passages, lambda numbered: numbered[0] // most)
    following, part = next(ranges, NONE_LEFT)
    for place, first in enumerate(range(0, max(num_numbers, 1), most)):
        here = place == following
        yield first, min(num_numbers - first, most), part if here else ()
        if here:
            following, part = next(ranges, NONE_LEFT)


def _write_tantivy(
    directory: Path, passages: Numbered, *, small: bool, folding: int, advance: Callable[[int], None]
) -> tuple[int, ...]:
    """Index passages into the files that a reader needs, and say how many documents each part of the index has."""
    tantivy = import_tantivy()
    index = tantivy.Index(index_schema(), str(directory))
    index.register_tokenizer(WORD_FORMS, word_forms(folding))
    with _index_errors(directory):
        # One thread, which leaves the other cores to others.
        writer: Any = index.writer(SMALL_WRITER_BYTES if small else WRITER_BYTES, 1)
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
        else:
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
