"""Put a new directory in the place of an old one, and clear up after a command that was killed while it did so.

    .NAME.glimmer-new.XXXXXXXXXXXXXXXX/       the new content, until it is renamed to NAME
    .NAME.glimmer-old.XXXXXXXXXXXXXXXX/old    the old content, from then until it is removed

Both stand beside NAME and are locked by the command that made them: a killed one's lock is gone with it.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from glimmer_export.exporter.durable import move, sync_tree
from glimmer_export.exporter.file_lock import held_alone
from glimmer_export.runtime.contract import OutputError

__all__ = ["new_directory", "recover", "swap_directory"]

NEW, OLD = "glimmer-new", "glimmer-old"


@contextmanager
def new_directory(target: Path) -> Iterator[Path]:
    """Yield an empty directory beside `target`; it is removed at the end, unless it was renamed."""
    work = _make(target, NEW)
    try:
        with held_alone(work):
            yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def swap_directory(work: Path, target: Path) -> None:
    """Rename `work` to `target`, whose old content is removed only when all of that is on the disk.

    The mode of the directory stays. A link among the old content is removed itself, and nothing behind it.
    """
    sync_tree(work)
    if not target.exists():
        move(work, target)
        return
    work.chmod(stat.S_IMODE(target.stat().st_mode))
    aside = _make(target, OLD)
    with held_alone(aside):
        try:
            move(target, aside / "old")
            try:
                move(work, target)
            except OSError:
                move(aside / "old", target)
                raise
        except OSError:
            with suppress(OSError):  # not empty: the old content could not be put back, and must not be lost
                aside.rmdir()
            raise
        shutil.rmtree(aside, ignore_errors=True)


def recover(target: Path) -> None:
    """Put back the content of `target` that a killed command had moved aside, and remove what else it left.

    Raises OutputError where there is no `target` because another command is just replacing it.
    """
    if not target.parent.is_dir():
        return
    ours = tuple(f".{target.name}.{kind}." for kind in (NEW, OLD))
    for path in sorted(target.parent.iterdir()):
        if path.name.startswith(ours) and path.is_dir() and not path.is_symlink():
            with suppress(FileNotFoundError):  # its owner has just removed it
                _recover(target, path)


def _recover(target: Path, path: Path) -> None:
    old = path / "old"
    with held_alone(path) as free:
        missing = old.is_dir() and not old.is_symlink() and not os.path.lexists(target)
        if free:
            if missing:
                move(old, target)
            shutil.rmtree(path, ignore_errors=True)
        elif missing:
            raise OutputError(
                f"output {target}", expected="no other command that replaces it", found=f"its old content in {old}",
                fix="wait until that command ends; if none is running, rename it back",
            )


def _make(target: Path, kind: str) -> Path:
    """A new directory under a name that nobody can foresee, with the mode that plain `mkdir` gives."""
    path = target.with_name(f".{target.name}.{kind}.{secrets.token_hex(8)}")
    try:
        path.mkdir()
    except FileNotFoundError as error:  # as /proc says that nothing can be made there
        raise PermissionError(errno.EPERM, str(error)) from error
    return path
