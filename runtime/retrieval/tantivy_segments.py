"""The parts of a store's tantivy index: whose files make one index, by a list that is written when it is opened.

tantivy keeps an index in segments, each of files of its own, and one list of them, `meta.json`. A segment is whole by
itself, and in numbers of passages like any other. So a store's segments keep the files alone, and what opens them lays
them side by side with a list of all: the ranking is that of one index, with the word counts of all together.
"""

from __future__ import annotations

import json
import os
import re
import struct
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from glimmer_export.runtime.contract import FileEntry, StoreError
from glimmer_export.runtime.contract.files import file_errors, open_file, read_limited
from glimmer_export.runtime.contract.records import MAX_JSON_BYTES, json_object
from glimmer_export.runtime.contract.store_layout import SegmentEntry

__all__ = ["INDEX_FIX", "META", "PART_FILES", "IndexPart", "index_parts", "lay_out", "read_list"]

META = "meta.json"
PART_FILES = frozenset({".fast", ".fieldnorm", ".idx", ".pos", ".store", ".term"})
"""What each of tantivy's segments has; that of lengths, `.fieldnorm`, has a byte a document at least."""
LENGTHS, STORED = ".fieldnorm", ".store"
INDEX_FIX = "write it again with `glimmer-export memory repair`, or copy the store again"
NAME = re.compile(r"[0-9a-f]{32}")
MAX_DOCUMENTS = 2**31 - 1
"""tantivy's own bound."""
MAX_LAYERS = 16
"""Of the skip list of a file of stored documents, each with an eighth of the entries of the one below."""
STORED_TAIL_BYTES, FOOTER_END = 28, struct.Struct("<II")
STORED_TAIL = struct.Struct("<IQ16x")
"""Version, and where the skip list begins: what stands before tantivy's footer in a file of stored documents."""


@dataclass(frozen=True)
class IndexPart:
    """One of tantivy's segments: its name, 32 hexadecimal digits, how many documents it has, and its files."""

    name: str
    documents: int
    files: tuple[Path, ...]


def index_parts(directory: Path, segments: Iterable[SegmentEntry]) -> list[IndexPart]:
    """The parts of all segments of a store in `directory`.

    Raises StoreError where the files are not those of so many parts, or cannot hold so many documents.
    """
    return [part for segment in segments for part in _parts(directory, segment)]


def _parts(directory: Path, segment: SegmentEntry) -> list[IndexPart]:
    subject = f"index {directory}, passages from {segment.first} on"
    files: dict[str, dict[str, FileEntry]] = {}
    documents = dict[str, int]()
    for entry in segment.files:
        path = PurePosixPath(entry.path)
        if path.name == META:
            documents = read_list(directory / entry.path)
        else:
            files.setdefault(path.stem, {})[path.suffix] = entry
    if not documents and len(segment.documents) == len(files):
        documents = dict(zip(sorted(files), segment.documents, strict=True))
    if documents.keys() != files.keys() or sum(documents.values()) != segment.num_passages:
        found = f"{sum(documents.values())} in {len(documents)} parts, with files of {len(files)}"
        raise StoreError(subject, expected=f"{segment.num_passages} passages", found=found, fix=INDEX_FIX)
    for name, count in documents.items():
        suffixes = files[name].keys()
        if suffixes != PART_FILES or not 1 <= count <= min(MAX_DOCUMENTS, files[name][LENGTHS].bytes):
            found = f"{', '.join(sorted(suffixes))} for {count} passages"
            raise StoreError(f"{subject}, {name}", expected="files of as many passages", found=found, fix=INDEX_FIX)
        _check_stored(directory / files[name][STORED].path)
    return [
        IndexPart(name, count, tuple(directory / entry.path for entry in files[name].values()))
        for name, count in sorted(documents.items())
    ]


def _check_stored(path: Path) -> None:
    """Raise StoreError for a file of stored documents whose skip list says that it has very many layers.

    tantivy takes memory for so many as it opens the file, and if there is not as much ends the process. What else is
    wrong with the file it says by itself.
    """
    subject = f"index {path}"
    with file_errors(error=StoreError, subject=subject, fix=INDEX_FIX), open_file(path) as stream:
        size = stream.seek(0, os.SEEK_END)
        length, _ = FOOTER_END.unpack(_bytes_at(stream, size - FOOTER_END.size, FOOTER_END.size))
        end = size - FOOTER_END.size - length
        _, start = STORED_TAIL.unpack(_bytes_at(stream, end - STORED_TAIL_BYTES, STORED_TAIL_BYTES))
        first = _bytes_at(stream, min(start, size), 1)[0]
    if not first & 128 or first & 127 > MAX_LAYERS:  # of a number the last byte, here the only one, has the bit
        raise StoreError(
            subject, expected=f"stored documents with at most {MAX_LAYERS} layers of a skip list", found="more",
            fix=INDEX_FIX,
        )


def _bytes_at(stream: BinaryIO, place: int, count: int) -> bytes:
    """So many bytes of a file from a place on, zeros where it has none."""
    stream.seek(max(place, 0))
    return stream.read(count).ljust(count, b"\0") if place >= 0 else bytes(count)


def read_list(path: Path) -> dict[str, int]:
    """The documents of each segment by its name, as tantivy's own list says; raises StoreError if it is none.

    Nothing else of the list is taken.
    """
    content = read_limited(
        path, limit_bytes=MAX_JSON_BYTES, error=StoreError, subject=f"index {path.parent}", fix=INDEX_FIX
    )
    listed = json_object(content, error=StoreError, subject=f"index {path}", fix=INDEX_FIX).get("segments")
    documents: dict[str, int] = {}
    for segment in listed if isinstance(listed, list) else [None]:
        fields: dict[str, Any] = segment if isinstance(segment, dict) else {}
        name, count = str(fields.get("segment_id")).replace("-", ""), fields.get("max_doc")
        known = NAME.fullmatch(name) and name not in documents and fields.get("deletes") is None
        if not (known and type(count) is int and count >= 1):
            raise StoreError(
                f"index {path}", expected="a list of whole segments", found=repr(segment)[:80], fix=INDEX_FIX
            )
        documents[name] = count
    return documents


def lay_out(folder: Path, parts: Sequence[IndexPart]) -> None:
    """Link the files of the parts into `folder`, and add them to the list of the empty index that tantivy made there.

    Raises FileExistsError for two parts of one name.
    """
    meta = folder / META
    listed = json.loads(meta.read_bytes())
    for part in parts:
        for file in part.files:
            (folder / file.name).symlink_to(file.resolve())
        listed["segments"].append(
            {"segment_id": str(uuid.UUID(part.name)), "max_doc": part.documents, "deletes": None}
        )
    meta.write_text(json.dumps(listed), encoding="utf-8")
