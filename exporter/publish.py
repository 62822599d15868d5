"""Write beside the target, then rename: an output is whole or absent, and what stood there before is not lost."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from runtime.contract import OutputError

__all__ = ["check_target", "publish_directory", "replace_file", "swap_directory", "write_errors"]

OURS = ("manifest.json", "config.json", "questions.jsonl")
"""One of these stands in every bundle, store, checkpoint and demo."""


@contextmanager
def publish_directory(target: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a new directory beside `target`; on success it becomes `target`, on any error it is removed.

    Raises OutputError where `target` exists and `overwrite` is off, and where the disk is full or not writable.
    """
    check_target(target, overwrite=overwrite)
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            yield work
            work.chmod(0o755)
            swap_directory(work, target)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def check_target(target: Path, *, overwrite: bool) -> None:
    """Raise OutputError where `target` exists and may not be replaced, or is not something of ours to replace."""
    if target.name in ("", "..") or target.is_mount():
        raise OutputError(
            f"output {target}", expected="the name of a directory to make", found="one that cannot be renamed",
            fix="name a new directory",
        )
    if overwrite and target.is_dir() and any(target.iterdir()) and not any((target / name).exists() for name in OURS):
        raise OutputError(
            f"output {target}", expected="something that glimmer-export wrote, to overwrite it", found="other files",
            fix="name another, or remove it by hand",
        )
    if target.exists() and not overwrite and not (target.is_dir() and not any(target.iterdir())):
        raise OutputError(
            f"output {target}", expected="a path that does not exist yet", found="one that does",
            fix="name another or pass --overwrite",
        )


def swap_directory(work: Path, target: Path) -> None:
    """Rename `work` to `target`, whose old content is removed only afterwards."""
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
        target.rename(old / "old")
        try:
            work.rename(target)
        except OSError:
            (old / "old").rename(target)
            raise
        shutil.rmtree(old, ignore_errors=True)
    else:
        work.rename(target)


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, and a crash leaves one of them."""
    temporary = path.with_name(f".{path.name}.tmp")
    with write_errors(path):
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def write_errors(target: Path) -> Iterator[None]:
    """Turn the operating system's refusals (full disk, permission, read-only) into an OutputError on `target`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OutputError(
                f"output {target}", expected="room on the disk", found="a full disk",
                fix="free some space, or write elsewhere, and run the command again",
            ) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise OutputError(
                f"output {target}", expected="a place that can be written", found=str(error), fix="write elsewhere"
            ) from error
        raise
