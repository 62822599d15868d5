"""The parts of a store's tantivy index: whose files make one index, by a list that is written when it is opened.

tantivy keeps an index in segments, each of files of its own, and one list of them, `meta.json`. A segment is whole by
itself, and in numbers of passages like any other. So a store's segments keep the files alone, and what opens them lays
them side by side with a list of all: the ranking is that of one index, with the word counts of all together.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from glimmer_export.runtime.contract import FileEntry, StoreError
from glimmer_export.runtime.contract.files import read_limited
from glimmer_export.runtime.contract.records import MAX_JSON_BYTES, json_object
from glimmer_export.runtime.contract.store_layout import SegmentEntry

__all__ = ["INDEX_FIX", "META", "PART_FILES", "IndexPart", "index_parts", "lay_out", "read_list"]

META = "meta.json"
PART_FILES = frozenset({".fast", ".fieldnorm", ".idx", ".pos", ".store", ".term"})
"""What each of tantivy's segments has; that of lengths, `.fieldnorm`, has a byte a document at least."""
LENGTHS = ".fieldnorm"
INDEX_FIX = "write it again with `glimmer-export memory repair`, or copy the store again"
NAME = re.compile(r"[0-9a-f]{32}")
MAX_DOCUMENTS = 2**31 - 1
"""tantivy's own bound."""


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
    return [
        IndexPart(name, count, tuple(directory / entry.path for entry in files[name].values()))
        for name, count in sorted(documents.items())
    ]


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
