"""DPR's and KILT's `psgs_w100.tsv`: a header `id`, `text`, `title`, and fields in quotes as Python's csv writes them.

Ids are strings, digits too: so the result files of DPR and KILT have them. A fourth column may be `wikipedia_id`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from glimmer_export.exporter.memory.corpus.lines import Line, read_lines
from glimmer_export.exporter.memory.corpus.record import (
    FIRST,
    MAX_RECORD_BYTES,
    Digest,
    Place,
    Record,
    passage_from_row,
)
from glimmer_export.runtime.contract import CorpusError

__all__ = ["read_tsv"]

COLUMNS = ["id", "text", "title"]
WITH_PAGE = [*COLUMNS, "wikipedia_id"]
FIX = "write it as DPR does: tabs between fields, quotes around one that has a quote, a tab or a line end"


def read_tsv(path: Path, start: Place, digest: Digest | None, *, name: str) -> Iterator[Record]:
    """One record a row, which has more than one line where a field has line ends. Raises CorpusError with its first.

    Blank lines are skipped.
    """
    lines = read_lines(path, start, digest, name=name)
    columns = _columns(path, lines if start == FIRST else read_lines(path, FIRST, None, name=name))
    for line in lines:
        if not line.text.isspace():
            subject = f"corpus {path}, line {line.place.number}"
            fields = _fields(line, lines, subject)
            if len(fields) != len(columns):
                raise CorpusError(subject, expected=f"{len(columns)} fields", found=str(len(fields)), fix=FIX)
            row = dict(zip(columns, fields, strict=True))
            yield Record(line.place, passage_from_row(row, subject=subject, fix="repair the row"))


def _columns(path: Path, lines: Iterator[Line]) -> list[str]:
    """Those of the header, the first of the lines; none in an empty file."""
    line = next(lines, None)
    if line is None:
        return []
    subject = f"corpus {path}, line 1"
    if (names := _fields(line, lines, subject)) not in (COLUMNS, WITH_PAGE):
        raise CorpusError(
            subject, expected="the header id, text, title, with tabs", found=repr(names)[:80],
            fix=f"add it, or name another --corpus-format; {FIX}",
        )
    return names


def _fields(line: Line, lines: Iterator[Line], subject: str) -> list[str]:
    """The fields of the row that begins with a line; takes the further lines of a field in quotes.

    The csv module is not used for the limit on its fields, which is one for the whole process.
    """
    fields, text, position = [], line.text, 0
    while True:
        if not text.startswith('"', position):
            end = text.find("\t", position)
            end = _end(text) if end < 0 else end
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
                            subject, expected="a quote that ends the field", found="none as far as it was read", fix=FIX
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
        if end == _end(text):
            return fields
        if text[end] != "\t":
            raise CorpusError(
                subject, expected="a tab after a field in quotes", found=repr(text[end : end + 20]), fix=FIX
            )
        position = end + 1


def _end(text: str) -> int:
    """Where a line's own end begins."""
    return len(text.removesuffix("\n").removesuffix("\r"))
