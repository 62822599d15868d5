"""Write beside the target, then rename: an output is whole or absent, and what stood there before is not lost."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from exporter.durable import move
from exporter.swap import new_directory, recover, swap_directory
from runtime.contract import OutputError
from runtime.contract.files import open_file

__all__ = ["check_apart", "check_file", "check_target", "publish_directory", "replace_file", "write_errors"]

OURS = ("manifest.json", "questions.jsonl")
"""One of these stands in every bundle, store and demo; a checkpoint has a config.json, as other programs' have."""
BAD_NAMES = (errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG)
MAX_CONFIG_BYTES = 1 << 20

Inputs = Sequence[str | Path | None]
"""Files and directories that a command reads; None where an option was not given."""


@contextmanager
def publish_directory(target: Path, *, overwrite: bool = False, inputs: Inputs = ()) -> Iterator[Path]:
    """Yield a new directory beside `target`; on success it becomes `target`, on any error it is removed.

    Raises OutputError as `check_target` does, and where the disk is full or not writable.
    """
    check_target(target, overwrite=overwrite, inputs=inputs)
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_directory(target) as work:
            yield work
            work.chmod(0o755)
            swap_directory(work, target)


def check_target(target: Path, *, overwrite: bool, inputs: Inputs = ()) -> None:
    """Raise OutputError where `target` exists and may not be replaced, is not ours to replace, or is in use as input.

    What a killed command left in the middle of replacing it is put right first.
    """
    with write_errors(target):
        if target.name in ("", "..") or target.is_mount():
            raise OutputError(
                f"output {target}", expected="the name of a directory to make", found="one that cannot be renamed",
                fix="name a new directory",
            )
        check_apart(target, inputs)
        recover(target)
        if not target.exists() or (target.is_dir() and not any(target.iterdir())):
            return
        if not overwrite:
            raise OutputError(
                f"output {target}", expected="a path that does not exist yet", found="one that does",
                fix="name another or pass --overwrite",
            )
        if not _is_ours(target):
            raise OutputError(
                f"output {target}", expected="something that glimmer-export wrote, to overwrite it",
                found="other files" if target.is_dir() else "a file", fix="name another, or remove it by hand",
            )


def check_apart(target: Path, inputs: Inputs) -> None:
    """Raise OutputError where writing `target` would replace an input, what holds it, or a part of it."""
    place = Path(os.path.realpath(target))
    for source in inputs:
        if source is None:
            continue
        other = Path(os.path.realpath(source))
        if place == other:
            found = f"the input {source}"
        elif place in other.parents:
            found = f"a directory that holds the input {source}"
        elif other in place.parents:
            found = f"a place inside the input {source}"
        else:
            continue
        raise OutputError(
            f"output {target}", expected="a place apart from what is read", found=found, fix="name another"
        )


def check_file(path: Path) -> None:
    """Raise OutputError where `replace_file` could not write `path`; nothing is left behind."""
    with write_errors(path):
        if (path.exists() and not path.is_file()) or _is_standard_stream(path):
            raise OutputError(
                f"output {path}", expected="the name of a file", found="a directory" if path.is_dir() else "a device",
                fix="name a new file",
            )
        if not path.parent.is_dir():
            raise OutputError(
                f"output {path}", expected="a directory to write it in", found=f"no directory {path.parent}",
                fix="make it, or write elsewhere",
            )
        # Only the attempt tells: root may write everywhere but where the file system forbids it.
        try:
            with tempfile.TemporaryFile(dir=path.parent):
                pass
        except FileNotFoundError as error:  # as /proc says it
            raise OutputError(
                f"output {path}", expected="a place that can be written", found=str(error), fix="write elsewhere"
            ) from None


def _is_standard_stream(path: Path) -> bool:
    """Whether a path is a link as /dev/stdout is: it may lead to a file, and a new one would replace the link."""
    return path.is_symlink() and str(path.readlink()).startswith(("/proc/", "/dev/"))


def _is_ours(directory: Path) -> bool:
    if any((directory / name).exists() for name in OURS):
        return True
    try:
        with open_file(directory / "config.json") as stream:
            config: Any = json.loads(stream.read(MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "glimmer"


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new, and a crash leaves one of them."""
    temporary = path.with_name(f".{path.name}.tmp")
    with write_errors(path):
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            move(temporary, path)
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
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, *BAD_NAMES):
            raise OutputError(
                f"output {target}", expected="a place that can be written", found=str(error), fix="write elsewhere"
            ) from error
        raise
