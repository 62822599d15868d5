"""Write the full-text index of passages in an engine of a store's choosing."""

from __future__ import annotations

import hashlib
import json
import shutil
import unicodedata
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from glimmer_export.exporter.whole_file import plain_mode
from glimmer_export.runtime.contract import FileEntry, IndexEntry, OptionError, OutputError, file_digest
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line
from glimmer_export.runtime.contract.store_layout import FOLDING
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
from glimmer_export.runtime.store import Passage

__all__ = ["AUTO", "FTS5", "TANTIVY", "choose_engine", "index_name", "require_engine", "write_index"]

FTS5, TANTIVY, AUTO = "fts5", "tantivy", "auto"
CHOICES = (AUTO, FTS5, TANTIVY)
MOST_FOR_FTS5 = 100_000
"""Passages up to which FTS5 answers in some milliseconds; at a million a question takes 20 times as long."""
WRITER_BYTES = 256 << 20
"""What is indexed in memory before it is written as a segment."""


def choose_engine(choice: str, num_passages: int) -> str:
    """The engine for so many passages; raises OptionError for a choice that is none of CHOICES."""
    if choice not in CHOICES:
        raise OptionError("index", expected=f"one of {', '.join(CHOICES)}", found=choice, fix="choose one of these")
    if choice != AUTO:
        return choice
    return TANTIVY if num_passages > MOST_FOR_FTS5 else FTS5


def require_engine(engine: str) -> None:
    """Raise MissingExtraError or StoreError where this Python cannot write the engine's index: before any work."""
    if engine == TANTIVY:
        import_tantivy()
    else:
        require_fts5()


def index_name(generation: int) -> str:
    """Folder of a generation's index below its store, where it has files of its own."""
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
        FileEntry(path.relative_to(store).as_posix(), path.stat().st_size, file_digest(path))
        for path in _index_files(directory)
    )
    return IndexEntry(TANTIVY, tuple(files), folding, unicode)


def _write_tantivy(
    directory: Path, passages: Iterable[tuple[int, Passage]], folding: int, advance: Callable[[int], None]
) -> None:
    tantivy = import_tantivy()
    index = tantivy.Index(index_schema(), str(directory))
    index.register_tokenizer(WORD_FORMS, word_forms(folding))
    with _writing(directory):
        writer: Any = index.writer(WRITER_BYTES, 1)  # one thread, which leaves the other cores to others
    for number, passage in passages:
        document = tantivy.Document()
        document.add_unsigned(NUMBER, number)
        document.add_text(PASSAGE, indexed_text(passage.title, passage.text, folding))
        with _writing(directory):
            writer.add_document(document)
        advance(1)
    with _writing(directory):
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


def _writing(directory: Path) -> LibraryErrors:
    """Name what tantivy refuses: its threads write, and of a full disk it says only that one of them died."""
    return tantivy_errors(
        lambda raised: OutputError(
            f"index {directory}", expected="room on the disk, and a place that can be written",
            found=first_line(raised), fix="free some space, or write elsewhere, and run the command again",
        )
    )
