"""One line or row of a corpus, and what of it can be stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from glimmer_export.calibration.evidence import page_name
from glimmer_export.calibration.passage_fields import passage_fields, present_fields
from glimmer_export.runtime.contract import CorpusError
from glimmer_export.runtime.contract.text_schema import is_id
from glimmer_export.runtime.store import Passage

__all__ = ["FIRST", "MAX_RECORD_BYTES", "Digest", "Place", "Reader", "Record", "passage_from_row"]

MAX_RECORD_BYTES = 16 << 20
"""Of one line or row: parsing a line of JSON can take twenty times its size."""


@dataclass(frozen=True)
class Place:
    """Where a record begins: `position` is a byte of the file's content, or a row; `number` a line or row, from 1."""

    position: int
    number: int


FIRST = Place(0, 1)


@dataclass(frozen=True)
class Record:
    """One passage or document as the file has it."""

    place: Place
    document: Passage


class Digest(Protocol):
    """What hashlib makes."""

    def update(self, content: bytes, /) -> None:
        """Take in some more bytes."""


Reader = Callable[[Path, Place, "Digest | None"], Iterator[Record]]
"""Reads a file from a place on and shows its content to a digest; raises CorpusError with the line or row."""


def passage_from_row(source: Mapping[str, Any], *, subject: str, fix: str) -> Passage:
    """Check `id`, `title` (none is the empty one), `text` and, where there is one, `wikipedia_id`.

    A field may stand under another collection's name: `passage_fields` has them.

    Raises CorpusError: an id that is absent or neither a 64-bit integer nor a string, a text that is empty, a page that
    is neither an integer nor a string, a string with a lone surrogate.
    """
    row = passage_fields(source)
    identifier, title, text = row.get("id"), row.get("title", ""), row.get("text")
    if not isinstance(identifier, str) and not is_id(identifier):
        raise CorpusError(
            subject, expected='an "id" that is a string or an integer of 64 bits', found=_shown(row, "id", source),
            fix=fix,
        )
    if not isinstance(title, str):
        found = _shown(row, "title", source)
        raise CorpusError(subject, expected='a "title" that is a string, or none', found=found, fix=fix)
    if not isinstance(text, str) or not text.strip():
        found = _shown(row, "text", source)
        raise CorpusError(subject, expected='a "text" that is not empty', found=found, fix=fix)
    page = _page(row, subject, fix)
    for name, value in (("id", identifier), ("title", title), ("text", text), ("wikipedia_id", page)):
        if isinstance(value, str) and not _is_unicode(value):
            raise CorpusError(subject, expected=f'a "{name}" that UTF-8 can write', found="a lone surrogate", fix=fix)
    return Passage(identifier, title, text, page)


def _page(row: Mapping[str, Any], subject: str, fix: str) -> str | None:
    try:
        return page_name(row.get("wikipedia_id"))
    except ValueError as reason:
        raise CorpusError(subject, expected=str(reason), found=repr(row["wikipedia_id"])[:80], fix=fix) from None


def _shown(row: Mapping[str, Any], key: str, source: Mapping[str, Any]) -> str:
    return repr(row[key])[:80] if key in row else f'no "{key}" among {present_fields(source)}'


def _is_unicode(value: str) -> bool:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
