"""What is renamed stays so after a loss of power: its content is on the disk before, and its folder's list behind it.

The system writes a file, its name and a folder's list when it likes, each apart. Without these calls a rename can
outlast the content that it names, and the removal of an old copy the rename of the new one.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

__all__ = ["move", "sync_directory", "sync_file", "sync_tree"]

NOT_SYNCED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)
"""What file systems say that do not sync folders, as many do that lie on a network."""
NOT_READ = (errno.EACCES, errno.EPERM)
"""A folder may be written without being read, and is opened for reading to be synced."""


def sync_file(path: Path) -> None:
    """Have the content of a file on the disk, whoever wrote it; raises OSError, as for a full disk."""
    _sync(path, os.O_NOFOLLOW)


def sync_directory(path: Path) -> None:
    """Have the list of a folder's entries on the disk; nothing where its file system does not sync folders."""
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
