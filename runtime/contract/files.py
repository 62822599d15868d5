"""How a file of a bundle, a store, a checkpoint, a sentence encoder or a configuration is opened: the one place.

What is opened is a regular file once links are followed: links that the user's own system made are its business
(Hugging Face's snapshots, DVC's cache, Kubernetes' ConfigMaps), and a digest vouches for the bytes. A FIFO would hold
the process for good, /dev/zero would fill its memory. What is read into memory has a limit, even if the file grows
meanwhile. A name that stands in a file may not lead out of its directory.

Functions of a path alone raise OSError; those with an `error` turn that into it, with `subject` and `fix` as its own.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath
from typing import BinaryIO

from glimmer_export.runtime.contract.errors import GlimmerError

__all__ = [
    "MAX_TOKENIZER_BYTES",
    "READABLE",
    "UnfitFileError",
    "check_regular",
    "file_errors",
    "inside",
    "is_there",
    "is_volume_part",
    "map_file",
    "map_regular",
    "open_descriptor",
    "open_file",
    "open_regular",
    "open_stream",
    "read_file",
    "read_limited",
]

FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
"""O_NONBLOCK: a FIFO that takes the file's place between looking and opening does not hold us either."""
KINDS = {
    stat.S_IFDIR: "a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
MAX_TOKENIZER_BYTES = 64 << 20
"""Of a tokenizer.json: a vocabulary of 256,000 pieces takes 35 MB, and the library ten times what the file has."""
READABLE = "let this user read it, and enter the folders above it: `namei -l PATH` shows who may"
ABSENT = (errno.ENOENT, errno.ENOTDIR)


class UnfitFileError(OSError):
    """A file that is there and is not read: no regular one, one over its limit, or a name that no file can have."""

    def __init__(self, *, expected: str, found: str) -> None:
        super().__init__(errno.EINVAL, f"expected {expected}, found {found}")
        self.expected, self.found = expected, found


def inside(directory: Path, name: str, *, error: type[GlimmerError], subject: str) -> Path:
    """Path of `name`, which stands in a file, below `directory`; raises `error` if it is absolute or climbs out.

    `name` is written with forward slashes, whatever the system. Where a link stands there, it is followed on opening.
    """
    relative = PurePosixPath(name)
    if not relative.parts or relative.is_absolute() or ".." in relative.parts or {"\\", "\0"} & set(name):
        raise error(
            subject, expected="file names that stay inside its directory", found=repr(name),
            fix="do not use this file; get it again from its source",
        )
    return directory / relative


def is_volume_part(relative: PurePath) -> bool:
    """Whether a path below a folder is where Kubernetes keeps a volume's files: in `..data`, or in `..2026_1`.

    The files have links beside those. No file of ours has such a name, and none that is stated in a file.
    """
    return any(part.startswith("..") for part in relative.parts)


def is_there(path: Path) -> bool:
    """Whether something is at a path, links followed. True if the system does not tell: opening it says why."""
    try:
        path.stat()
    except OSError as reason:
        return reason.errno not in ABSENT
    except ValueError:
        return True
    return True


def open_descriptor(path: Path) -> int:
    """A descriptor of a regular file, to read it, which the caller closes; raises OSError."""
    with _possible_name():
        # Looked at before it is opened: opening alone is felt by some devices.
        _check_kind(path.stat().st_mode)
        descriptor = os.open(path, FLAGS)
    try:
        _check_kind(os.fstat(descriptor).st_mode)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def open_file(path: Path) -> BinaryIO:
    """A regular file, opened for reading; raises OSError."""
    return open(open_descriptor(path), "rb")  # a descriptor, which the stream closes


def open_stream(path: Path) -> BinaryIO:
    """A file that a user named, to be read once: a regular one, a terminal, or what another process writes, a pipe.

    So is a shell's `<(...)`. A FIFO to which nothing writes is at its end at once. Raises OSError.
    """
    with _possible_name():
        descriptor = os.open(path, FLAGS)
    try:
        mode = os.fstat(descriptor).st_mode
        if not (stat.S_ISFIFO(mode) or os.isatty(descriptor)):
            _check_kind(mode)
        os.set_blocking(descriptor, True)
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def read_file(path: Path, limit_bytes: int) -> bytes:
    """The content of a regular file of at most `limit_bytes`, however it grows meanwhile; raises OSError."""
    with open_file(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size > limit_bytes:
            raise UnfitFileError(expected=f"at most {limit_bytes} bytes", found=str(size))
        content = stream.read(size + 1)
        if len(content) > size:  # it grew, or the system makes it up as it is read
            content += stream.read(limit_bytes + 1 - len(content))
    if len(content) > limit_bytes:
        raise UnfitFileError(expected=f"at most {limit_bytes} bytes", found="more")
    return content


def map_file(path: Path) -> mmap.mmap | None:
    """The bytes of a regular file, mapped: they are read as they are looked at. None if it is empty.

    Raises OSError.
    """
    with open_file(path) as stream:
        if not os.fstat(stream.fileno()).st_size:
            return None
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)


@contextmanager
def file_errors(
    *, error: type[GlimmerError], subject: str, fix: str, expected: str = "a readable file"
) -> Iterator[None]:
    """Turn any OSError into `error`; its `expected` is the given one if the file is absent or not to be opened."""
    try:
        yield
    except UnfitFileError as reason:
        raise error(subject, expected=reason.expected, found=reason.found, fix=fix) from None
    except FileNotFoundError:
        raise error(subject, expected=expected, found="none", fix=fix) from None
    except PermissionError as reason:  # nothing is wrong with the file, which may be another user's
        expected = "a file that this user may read"
        raise error(subject, expected=expected, found=str(reason.strerror), fix=READABLE) from None
    except OSError as reason:
        raise error(subject, expected=expected, found=reason.strerror or str(reason), fix=fix) from None


def open_regular(
    path: Path, *, error: type[GlimmerError], subject: str, fix: str, expected: str = "a readable file"
) -> BinaryIO:
    """A regular file, opened for reading; raises `error`. What reading raises is for the caller's `file_errors`."""
    with file_errors(error=error, subject=subject, fix=fix, expected=expected):
        return open_file(path)


def read_limited(
    path: Path, *, limit_bytes: int, error: type[GlimmerError], subject: str, fix: str,
    expected: str = "a readable file",
) -> bytes:
    """The content of a regular file of at most `limit_bytes`; raises `error`."""
    with file_errors(error=error, subject=subject, fix=fix, expected=expected):
        return read_file(path, limit_bytes)


def map_regular(
    path: Path, *, error: type[GlimmerError], subject: str, fix: str, expected: str = "a readable file"
) -> mmap.mmap | None:
    """As `map_file`; raises `error`."""
    with file_errors(error=error, subject=subject, fix=fix, expected=expected):
        return map_file(path)


def check_regular(
    path: Path, *, error: type[GlimmerError], subject: str, fix: str, expected: str = "a readable file"
) -> Path:
    """The path, for a library that opens it by itself, once it is known to be a regular file; raises `error`."""
    open_regular(path, error=error, subject=subject, fix=fix, expected=expected).close()
    return path


@contextmanager
def _possible_name() -> Iterator[None]:
    """NUL and lone surrogates, which no file's name has, come as ValueError."""
    try:
        yield
    except ValueError as reason:
        raise UnfitFileError(expected="a name that a file can have", found=str(reason)) from None


def _check_kind(mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise UnfitFileError(expected="a regular file", found=KINDS.get(stat.S_IFMT(mode), "something else"))
