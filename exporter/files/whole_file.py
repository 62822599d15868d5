"""Files that appear whole: written under a name that nobody can foresee, then renamed.

    .NAME.XXXXXXXXXXXXXXXX.tmp    the new content of NAME, beside it, until it is renamed

Such a file is made anew and through no link (O_EXCL, O_NOFOLLOW), and is locked by the command that writes it: a killed
one's lock is gone with it, and `remove_unfinished` then knows the file for one that nobody will finish.

What is renamed stays so after a loss of power: its content is on the disk before, and its folder's list behind it. The
system writes a file, its name and a folder's list when it likes, each apart. Without `move` and `sync_...` a rename can
outlast the content that it names, and the removal of an old copy the rename of the new one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from glimmer_export.runtime.contract import OutputError

__all__ = [
    "PROBE", "UNFINISHED", "held_alone", "move", "plain_mode", "remove_unfinished", "replace_file",
    "sync_directory", "sync_file", "sync_tree", "unforeseen_name", "whole_file", "write_errors",
]  # fmt: skip

NOT_SYNCED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)
"""What file systems say that do not sync folders, as many do that lie on a network."""
NOT_READ = (errno.EACCES, errno.EPERM)
"""A folder may be written without being read, and is opened for reading to be synced."""


def sync_file(path: Path) -> None:
    """Have the content of a file on the disk, whoever wrote it; raises OSError, as for a full disk."""
    _sync(path, os.O_NOFOLLOW)


def sync_directory(path: Path) -> None:
    """Have the list of a folder's entries on the disk; nothing if its file system does not sync folders."""
    try:
        _sync(path, os.O_DIRECTORY)
    except OSError as error:
        if error.errno not in (*NOT_SYNCED, *NOT_READ):
            raise


def sync_tree(directory: Path) -> None:
    """Have on the disk every file below a folder, and every folder with it; links are not followed."""
    for folder, _, names in os.walk(directory, topdown=False, onerror=_raise):
        for name in names:
            path = Path(folder, name)
            if path.is_file() and not path.is_symlink():
                sync_file(path)
        sync_directory(Path(folder))


def move(source: Path, target: Path) -> None:
    """Rename what is on the disk already, in place of what is at `target`, and have the rename there too.

    A link at `target` is replaced, not followed.
    """
    source.replace(target)
    for folder in dict.fromkeys((target.parent, source.parent)):
        with suppress(FileNotFoundError):  # another process has removed what the source was in
            sync_directory(folder)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, os.O_RDONLY | flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _raise(error: OSError) -> None:
    raise error


@contextmanager
def held_alone(path: Path, flags: int = os.O_RDONLY) -> Iterator[bool]:
    """Hold the lock of what is at `path`, opened with `flags`.

    Yields False if another process has it, shared or not, or where the file system knows no locks.
    """
    descriptor = os.open(path, flags)
    try:
        free = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            free = False
        yield free
    finally:
        os.close(descriptor)


UNFINISHED = re.compile(r"\.[^/]*\.[0-9a-f]{16}\.tmp")
PROBE = "mode"
"""The name whose unfinished file `plain_mode` makes."""
LONGEST = 200
"""Bytes of a file's name that go into its temporary name, which may have 255 in all."""
ANEW = os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
PLAIN_FILE = 0o666
"""What plain `open` asks for; the system takes the umask's bits away."""
BAD_NAMES = (errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP, errno.ENXIO)


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Yield an empty file beside `path`, to be written in place; it becomes `path` on success, and goes on any error.

    It has the mode that plain `open` would give, or that of the file in whose place it comes. Raises OSError.
    """
    with _anew(path) as (temporary, _):
        yield temporary


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, and a crash leaves one of them.

    A link at `path` is replaced, not followed. Raises OutputError as `write_errors`.
    """
    with write_errors(path), _anew(path) as (_, descriptor), open(descriptor, "wb", closefd=False) as stream:
        stream.write(content)


@contextmanager
def _anew(path: Path) -> Iterator[tuple[Path, int]]:
    temporary = path.with_name(unforeseen_name(path.name))
    descriptor = os.open(temporary, os.O_RDWR | ANEW, PLAIN_FILE)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(FileNotFoundError):
            if stat.S_ISREG((earlier := path.lstat()).st_mode):
                os.fchmod(descriptor, stat.S_IMODE(earlier.st_mode))
        yield temporary, descriptor
        os.fsync(descriptor)
        move(temporary, path)
    finally:
        os.close(descriptor)
        temporary.unlink(missing_ok=True)


def unforeseen_name(name: str) -> str:
    """A name for the unfinished file `name`, which UNFINISHED matches."""
    return f"{_beginning(name)}{secrets.token_hex(8)}.tmp"


def _beginning(name: str) -> str:
    return f".{os.fsencode(name)[:LONGEST].decode(errors='ignore')}."


def remove_unfinished(directory: Path, name: str | None = None) -> None:
    """Remove what killed commands have left in `directory` of the file `name`, or of any; a running one's stays.

    Raises OSError.
    """
    for entry in list(os.scandir(directory)):
        if UNFINISHED.fullmatch(entry.name) and (name is None or entry.name.startswith(_beginning(name))):
            path = Path(entry.path)
            if entry.is_symlink():  # nobody's
                path.unlink(missing_ok=True)
            elif entry.is_file():
                with suppress(FileNotFoundError), held_alone(path, os.O_RDONLY | os.O_NOFOLLOW) as free:
                    if free:
                        path.unlink()


def plain_mode(directory: Path) -> int:
    """The mode that plain `open` gives a new file in `directory`; asking for the umask would set it, for all threads.

    Raises OSError.
    """
    probe = directory / unforeseen_name(PROBE)
    descriptor = os.open(probe, os.O_WRONLY | ANEW, PLAIN_FILE)
    try:
        return stat.S_IMODE(os.fstat(descriptor).st_mode)
    finally:
        os.close(descriptor)
        probe.unlink(missing_ok=True)


@contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """Turn the operating system's refusals (full disk, permission, read-only) into an OutputError on `target`.

    What is refused of another file, which is read meanwhile, stays as it is: another output would not mend it.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OutputError(
                f"output {target}", expected="room on the disk", found="a full disk",
                fix="free some space, or write elsewhere, and run the command again",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, *BAD_NAMES) and _is_of(target, error):
            raise OutputError(
                f"output {target}", expected="a place that can be written", found=str(error), fix="write elsewhere"
            ) from error
        raise


def _is_of(target: Path, error: OSError) -> bool:
    """Whether what the system refuses is the target, a folder on the way to it, or something in or beside it."""
    if not isinstance(error.filename, (str, bytes)):
        return True
    folder, name = os.path.split(os.fsdecode(error.filename))  # a link that is refused is not what it leads to
    named, ours = Path(os.path.realpath(folder), name), Path(os.path.realpath(target))
    if ours.parent.is_relative_to(named):
        return True
    start = ours.name[:50]  # what a temporary name has of a long one
    beside = named.relative_to(ours.parent).parts[0] if named.is_relative_to(ours.parent) else named.name
    return start in beside or UNFINISHED.fullmatch(beside) is not None
