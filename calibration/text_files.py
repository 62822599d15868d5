"""Files of text, plain, in gzip or in zstd, as the readers of questions and of corpora open them; and their folders."""

from __future__ import annotations

import gzip
import io
import sys
import zlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast

from glimmer_export.runtime.contract import GlimmerError, file_errors
from glimmer_export.runtime.contract.files import READABLE, UnfitFileError, open_stream

__all__ = [
    "BOM", "MAX_BLANK_LINES", "Packed", "compression_of", "files_of", "open_bytes", "open_named", "reading",
    "unpacked_limit",
]

BOM = "\ufeff"
"""What some editors and Windows programs begin a file in UTF-8 with."""
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
ENDINGS = {".gz": "gzip", ".zst": "zstd"}
MAX_WINDOW_LOG = 27
"""128 MiB: what a frame of zstd may ask the reader to hold; `zstd --long` and `--ultra -22` ask for no more."""

MAX_UNPACKED_RATIO = 50
"""Text comes to 3 to 20 times its packed size, one line over and over to a thousand times and more."""
MIN_UNPACKED_BYTES = 4 << 20
"""What is as small as this once it is unpacked is no bomb, however small it was."""
MAX_PADDING_BYTES = 1 << 20
"""Zeros in a row in a gzip file, which allows them behind its content, as tapes had them: packed text has none."""
UNPACKED_BUFFER_BYTES = 1 << 17
MAX_BLANK_LINES = 1 << 20
"""One after the other: they are passed over, and a few kilobytes unpack to millions."""


def compression_of(path: Path, name: str) -> str | None:
    """`gzip`, `zstd` or None: what the ending of a name, or of a format's name, says, else the file's first bytes.

    Raises OSError.
    """
    for ending, compression in ENDINGS.items():
        if name.lower().endswith(ending):
            return compression
    with path.open("rb") as stream:
        first = stream.read(4)
    return next((compression for magic, compression in MAGIC.items() if first.startswith(magic)), None)


def open_bytes(path: Path, compression: str | None) -> tuple[BinaryIO, Packed | None]:
    """The file's content, uncompressed as it is read, and the packed file; a position is one of the content.

    Raises OSError, and ModuleNotFoundError for zstd without its package.
    """
    return _uncompressed(path.open("rb"), compression)


def unpacked_limit(path: Path) -> int:
    """Bytes that the content of a packed file, compressed or by columns, may come to; raises OSError."""
    return max(MIN_UNPACKED_BYTES, MAX_UNPACKED_RATIO * path.stat().st_size)


@contextmanager
def open_named(path: Path, subject: str, error: type[GlimmerError]) -> Iterator[tuple[BinaryIO, Packed | None]]:
    """The content of a file that a user named, uncompressed as it is read, and the packed file; opened but once.

    It may be a pipe, which gives its content once. Raises `error`, also of what the block reads, and
    ModuleNotFoundError for zstd without its package.
    """
    with reading(subject, error):
        stream = open_stream(path)
    with stream:
        with reading(subject, error):
            first = cast("BufferedReader", stream).peek(4)[:4]
        named = next((found for ending, found in ENDINGS.items() if path.name.lower().endswith(ending)), None)
        compression = named or next((found for magic, found in MAGIC.items() if first.startswith(magic)), None)
        with reading(subject, error, compression):
            content, packed = _uncompressed(stream, compression)
            with content:
                yield content, packed


class Packed:
    """A packed file as it is read: what was taken of it so far says how much that may have come to."""

    def __init__(self, stream: BinaryIO, *, padded: bool) -> None:
        """`padded`: zeros may stand behind the content, as in gzip, but not without end."""
        self._stream, self._padded = stream, padded
        self._taken = self._zeros = 0

    def limit(self) -> int:
        """Bytes of content that may have been unpacked by now."""
        return max(MIN_UNPACKED_BYTES, MAX_UNPACKED_RATIO * self._taken)

    def read(self, size: int = -1) -> bytes:
        """For the library; raises BadGzipFile if padding takes no end: it would be read byte by byte."""
        content = self._stream.read(size)
        self._taken += len(content)
        if self._padded:
            self._zeros = 0 if content.strip(b"\0") else self._zeros + len(content)
            if self._zeros > MAX_PADDING_BYTES:
                raise gzip.BadGzipFile(f"more than {MAX_PADDING_BYTES} zeros in a row")
        return content

    def seek(self, place: int, whence: int = 0) -> int:
        """For the library, which begins again."""
        self._zeros = 0
        return self._stream.seek(place, whence)

    def seekable(self) -> bool:
        """As the file."""
        return self._stream.seekable()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


class _Closing(io.BufferedReader):
    """Content that closes the packed file too: what a library unpacks an open file by leaves that open."""

    def __init__(self, content: Any, packed: Packed) -> None:
        self._packed = packed
        super().__init__(content, UNPACKED_BUFFER_BYTES)

    def close(self) -> None:
        super().close()
        self._packed.close()


def _uncompressed(stream: BinaryIO, compression: str | None) -> tuple[BinaryIO, Packed | None]:
    if compression is None:
        return stream, None
    packed = Packed(stream, padded=compression == "gzip")
    if compression == "gzip":
        content: Any = gzip.GzipFile(fileobj=cast("BinaryIO", packed), mode="rb")
    else:
        zstd = _zstd()
        options = {zstd.DecompressionParameter.window_log_max: MAX_WINDOW_LOG}
        content = zstd.open(packed, "rb", options=options)
    return cast("BinaryIO", _Closing(content, packed)), packed


@contextmanager
def reading(subject: str, error: type[GlimmerError], compression: str | None = None) -> Iterator[None]:
    """Turn what goes wrong while a file is read into `error`: one that is unreadable, cut short or damaged."""
    try:
        yield
    except _damage() as reason:
        raise error(
            subject, expected=f"{compression or 'a file'} that is whole", found=str(reason),
            fix="compress or copy the file again",
        ) from None
    except UnfitFileError as reason:
        raise error(subject, expected=reason.expected, found=reason.found, fix="check the file's name") from None
    except PermissionError as reason:
        raise error(subject, expected="a file that this user may read", found=str(reason), fix=READABLE) from None
    except OSError as reason:
        raise error(subject, expected="a readable file", found=str(reason), fix="check the file's name") from None


def files_of(
    paths: Sequence[Path], endings: Collection[str], *, subject: str, error: type[GlimmerError]
) -> list[Path]:
    """The files that some paths name, in their order.

    A path is a file, or a folder: its files whose names end in one of `endings` (all, if there is none), in the
    order of their names; or, if nothing is there, a pattern such as `part-*.jsonl`. Raises `error` for a folder or a
    pattern of no file, and for a file that two of the paths name.
    """
    found: list[Path] = []
    for path in paths:
        with file_errors(error=error, subject=f"{subject} {path}", fix="check the file's name"):
            inside = _inside(path, endings)
        if not inside:
            kinds = ", ".join(endings)
            raise error(
                f"{subject} {path}", expected=f"files that end in {kinds}" if kinds else "files", found="none",
                fix="name the files, or another folder",
            )
        found.extend(inside)
    repeated = next((path for place, path in enumerate(found) if path in found[:place]), None)
    if repeated is not None:
        raise error(f"{subject} {repeated}", expected="each file once", found="it twice", fix="name it once")
    return found


def _inside(path: Path, endings: Collection[str]) -> list[Path]:
    if path.is_dir():
        named = (item for item in path.iterdir() if item.is_file() and not item.name.startswith("."))
        return sorted(item for item in named if not endings or item.name.lower().endswith(tuple(endings)))
    if not path.exists() and any(mark in path.name for mark in "*?["):
        return sorted(item for item in path.parent.glob(path.name) if item.is_file())
    return [path]


def _damage() -> tuple[type[Exception], ...]:
    """What the packages raise of a compressed file that is damaged; zstd's only if it was opened."""
    name = _zstd_name()
    return (gzip.BadGzipFile, EOFError, zlib.error, *([_zstd().ZstdError] if name in sys.modules else []))


def _zstd_name() -> str:
    return "compression.zstd" if sys.version_info >= (3, 14) else "backports.zstd"


def _zstd() -> Any:
    return import_module(_zstd_name())
