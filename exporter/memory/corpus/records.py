"""One line or row of a corpus, what of it can be stored, and the formats that are lines of text, plain or compressed.

JSONL has an object a line with the fields of a passage, under our names or another collection's; others are ignored.
TSV is DPR's and KILT's `psgs_w100.tsv`: a header `id`, `text`, `title`, and fields in quotes as Python's csv writes
them. Its ids are strings, digits too: so the result files of DPR and KILT have them. A fourth column may be
`wikipedia_id`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from glimmer_export.calibration.public_fields import page_name, passage_fields, present_fields
from glimmer_export.calibration.text_files import BOM, MAX_BLANK_LINES, compression_of, open_bytes, reading
from glimmer_export.runtime.contract import CorpusError
from glimmer_export.runtime.contract.json_text import parse_json
from glimmer_export.runtime.contract.text_schema import is_id
from glimmer_export.runtime.store import Passage

__all__ = [
    "FIRST", "MAX_RECORD_BYTES", "Digest", "Line", "Place", "Reader", "Record", "passage_from_row", "read_jsonl",
    "read_lines", "read_tsv",
]  # fmt: skip

MAX_RECORD_BYTES = 16 << 20
"""Of one line or row: parsing a line of JSON can take twenty times its size."""
BLANK_FIX = "remove the blank lines"
REPAIR = "repair the line"
AS_LINES = "write an object a line, as `jq -c '.[]' FILE` does"
TSV_COLUMNS = ["id", "text", "title"]
TSV_WITH_PAGE = [*TSV_COLUMNS, "wikipedia_id"]
AS_DPR = "write it as DPR does: tabs between fields, quotes around one that has a quote, a tab or a line end"


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
    """Check `id`, `title` (none is the empty one), `text` and, if there is one, `wikipedia_id`.

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


@dataclass(frozen=True)
class Line:
    """A line with its end, as UTF-8; only a line feed ends one. A byte order mark before the first is no part of it."""

    place: Place
    text: str


def read_lines(path: Path, start: Place, digest: Digest | None, *, name: str) -> Iterator[Line]:
    """Lines from `start` on; the digest is shown their bytes, uncompressed.

    `name` is the format's: `jsonl.gz` is read as gzip, `jsonl` as what its first bytes say. What comes before `start`
    is skipped in a plain file and read through in a compressed one. Raises CorpusError: unreadable, a compressed file
    that is cut short or damaged, or that unpacks to far too much, a line that is too long or not UTF-8. Raises
    ModuleNotFoundError for zstd without its package.
    """
    subject = f"corpus {path}"
    with reading(subject, CorpusError):
        compression = compression_of(path, name)
        stream, packed = open_bytes(path, compression)
    with stream, reading(subject, CorpusError, compression):
        stream.seek(start.position)
        place, blank = start, 0
        while content := stream.readline(MAX_RECORD_BYTES + 1):
            if digest is not None:
                digest.update(content)
            if packed is not None and place.position + len(content) > (most := packed.limit()):
                raise CorpusError(
                    subject, expected=f"at most {most} bytes, uncompressed", found="more",
                    fix="unpack the file if it is sound",
                )
            blank = blank + 1 if content.isspace() else 0
            if blank > MAX_BLANK_LINES:
                raise CorpusError(
                    f"{subject}, line {place.number}", expected="passages", found=f"{blank} blank lines", fix=BLANK_FIX
                )
            text = _text(content, f"{subject}, line {place.number}")
            yield Line(place, text if place.position else text.removeprefix(BOM))
            place = Place(place.position + len(content), place.number + 1)


def _text(content: bytes, subject: str) -> str:
    if len(content) > MAX_RECORD_BYTES:
        raise CorpusError(
            subject, expected=f"at most {MAX_RECORD_BYTES} bytes", found="more", fix="put one passage on a line"
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as reason:
        raise CorpusError(subject, expected="UTF-8", found=str(reason), fix="convert the file to UTF-8") from None


def read_jsonl(path: Path, start: Place, digest: Digest | None, *, name: str) -> Iterator[Record]:
    """One record a line; blank lines are skipped. Raises CorpusError with the line's number."""
    for line in read_lines(path, start, digest, name=name):
        if line.text.isspace():
            continue
        subject = f"corpus {path}, line {line.place.number}"
        try:
            row = parse_json(line.text)
        except ValueError as reason:
            fix = AS_LINES if line.text.lstrip().startswith("[") else REPAIR
            raise CorpusError(subject, expected="a JSON object", found=str(reason), fix=fix) from None
        if not isinstance(row, dict):
            fix = AS_LINES if isinstance(row, list) else REPAIR
            raise CorpusError(subject, expected="a JSON object", found=type(row).__name__, fix=fix)
        yield Record(line.place, passage_from_row(row, subject=subject, fix=REPAIR))


def read_tsv(path: Path, start: Place, digest: Digest | None, *, name: str) -> Iterator[Record]:
    """One record a row, which has more than one line if a field has line ends. Raises CorpusError with its first.

    Blank lines are skipped.
    """
    lines = read_lines(path, start, digest, name=name)
    columns = _tsv_columns(path, lines if start == FIRST else read_lines(path, FIRST, None, name=name))
    for line in lines:
        if not line.text.isspace():
            subject = f"corpus {path}, line {line.place.number}"
            fields = _tsv_fields(line, lines, subject)
            if len(fields) != len(columns):
                raise CorpusError(subject, expected=f"{len(columns)} fields", found=str(len(fields)), fix=AS_DPR)
            row = dict(zip(columns, fields, strict=True))
            yield Record(line.place, passage_from_row(row, subject=subject, fix="repair the row"))


def _tsv_columns(path: Path, lines: Iterator[Line]) -> list[str]:
    """Those of the header, the first of the lines; none in an empty file."""
    line = next(lines, None)
    if line is None:
        return []
    subject = f"corpus {path}, line 1"
    if (names := _tsv_fields(line, lines, subject)) not in (TSV_COLUMNS, TSV_WITH_PAGE):
        raise CorpusError(
            subject, expected="the header id, text, title, with tabs", found=repr(names)[:80],
            fix=f"add it, or name another --corpus-format; {AS_DPR}",
        )
    return names


def _tsv_fields(line: Line, lines: Iterator[Line], subject: str) -> list[str]:
    """The fields of the row that begins with a line; takes the further lines of a field in quotes.

    The csv module is not used for the limit on its fields, which is one for the whole process.
    """
    fields, text, position = [], line.text, 0
    while True:
        if not text.startswith('"', position):
            end = text.find("\t", position)
            end = _line_end(text) if end < 0 else end
            fields.append(text[position:end])
        else:
            pieces, begin = [], position + 1
            while True:
                end = text.find('"', begin)
                if end < 0:
                    pieces.append(text[begin:])
                    following = next(lines, None)
                    if following is None or following.place.position - line.place.position > MAX_RECORD_BYTES:
                        raise CorpusError(
                            subject, expected="a quote that ends the field", found="none as far as it was read",
                            fix=AS_DPR,
                        )
                    text, begin = following.text, 0
                elif text.startswith('"', end + 1):
                    pieces.append(text[begin : end + 1])
                    begin = end + 2
                else:
                    pieces.append(text[begin:end])
                    break
            end += 1
            fields.append("".join(pieces))
        if end == _line_end(text):
            return fields
        if text[end] != "\t":
            raise CorpusError(
                subject, expected="a tab after a field in quotes", found=repr(text[end : end + 20]), fix=AS_DPR
            )
        position = end + 1


def _line_end(text: str) -> int:
    """Where a line's own end begins."""
    return len(text.removesuffix("\n").removesuffix("\r"))
