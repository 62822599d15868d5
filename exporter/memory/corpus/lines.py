"""The lines of a text file, plain or in gzip, from any line on."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from exporter.memory.corpus.record import MAX_RECORD_BYTES, Digest, Place
from runtime.contract import CorpusError

__all__ = ["Line", "read_lines"]


@dataclass(frozen=True)
class Line:
    """A line with its end, as UTF-8; only a line feed ends one."""

    place: Place
    text: str


def read_lines(path: Path, start: Place, digest: Digest | None, *, compressed: bool) -> Iterator[Line]:
    """Lines from `start` on; the digest is shown their bytes, uncompressed.

    What comes before `start` is skipped in a plain file and read through in gzip. Raises CorpusError: unreadable,
    gzip that is cut short or damaged, a line that is too long or not UTF-8.
    """
    try:
        with gzip.open(path, "rb") if compressed else path.open("rb") as stream:
            stream.seek(start.position)
            place = start
            while content := stream.readline(MAX_RECORD_BYTES + 1):
                if digest is not None:
                    digest.update(content)
                yield Line(place, _text(content, f"corpus {path}, line {place.number}"))
                place = Place(place.position + len(content), place.number + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as reason:
        raise CorpusError(
            f"corpus {path}", expected="gzip that is whole", found=str(reason), fix="compress or copy the file again"
        ) from None
    except OSError as reason:
        raise CorpusError(
            f"corpus {path}", expected="a readable file", found=str(reason), fix="check the file"
        ) from None


def _text(content: bytes, subject: str) -> str:
    if len(content) > MAX_RECORD_BYTES:
        raise CorpusError(
            subject, expected=f"at most {MAX_RECORD_BYTES} bytes", found="more", fix="put one passage on a line"
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as reason:
        raise CorpusError(subject, expected="UTF-8", found=str(reason), fix="convert the file to UTF-8") from None
