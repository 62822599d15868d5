"""The lines of a text file, plain or compressed, from any line on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from glimmer_export.calibration.text_files import BOM, MAX_BLANK_LINES, compression_of, open_bytes, reading
from glimmer_export.exporter.memory.corpus.record import MAX_RECORD_BYTES, Digest, Place
from glimmer_export.runtime.contract import CorpusError

__all__ = ["Line", "read_lines"]

BLANK_FIX = "remove the blank lines"


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
