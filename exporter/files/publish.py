"""Write beside the target, then rename: an output is whole or absent, and what stood there before is not lost.

    .NAME.glimmer-new.XXXXXXXXXXXXXXXX/       the new content, until it is renamed to NAME
    .NAME.glimmer-old.XXXXXXXXXXXXXXXX/old    the old content, from then until it is removed

Both stand beside NAME and are locked by the command that made them: a killed one's lock is gone with it.
"""

from __future__ import annotations

import errno
import json
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from glimmer_export.exporter.files.links import Inputs, check_apart, resolved
from glimmer_export.exporter.files.whole_file import (
    PROBE,
    held_alone,
    move,
    plain_mode,
    remove_unfinished,
    replace_file,
    sync_tree,
    write_errors,
)
from glimmer_export.runtime.contract import OutputError
from glimmer_export.runtime.contract.files import is_there, open_file

__all__ = [
    "TRITON_MARK", "Inputs", "check_apart", "check_file", "check_place", "check_target", "new_directory",
    "publish_directory", "recover", "replace_file", "swap_directory", "write_errors",
]  # fmt: skip

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

    Raises OutputError if there is no `target` because another command is just replacing it.
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


OURS = ("manifest.json", "questions.jsonl", "encoder.json")
"""One of these stands in every bundle, store, demo and exported encoder; a checkpoint has a config.json, as other
programs' have."""
TRITON_MARK = "# Written by `glimmer-export triton`"
"""How the config.pbtxt of a model begins that we wrote: a model repository has no file at its top."""
MAX_CONFIG_BYTES = 1 << 20
MOST_LINKS = 40
"""As many as Linux itself follows."""


@contextmanager
def publish_directory(target: Path, *, overwrite: bool = False, inputs: Inputs = ()) -> Iterator[Path]:
    """Yield a new directory beside `target`; on success it becomes `target`, on any error it is removed.

    Nobody can have put a link into it: its name is made up, and files in it may be written by their own names. Where
    `target` is a link, what it leads to is replaced, and the link stays.

    Raises OutputError as `check_target` does, and if the disk is full or not writable.
    """
    check_target(target, overwrite=overwrite, inputs=inputs)
    target = resolved(target)
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_directory(target) as work:
            yield work
            swap_directory(work, target)


def check_target(target: Path, *, overwrite: bool, inputs: Inputs = ()) -> None:
    """Raise OutputError if `target` exists and may not be replaced, is not ours to replace, or is in use as input.

    Also if nothing can be made in the folder that it is to stand in, or in the nearest one there is. What a killed
    command left in the middle of replacing it is put right first.
    """
    with write_errors(target):
        if target.name in ("", "..") or target.is_mount():
            raise OutputError(
                f"output {target}", expected="the name of a directory to make", found="one that cannot be renamed",
                fix="name a new directory",
            )
        check_apart(target, inputs)
        target = _resolved(target, "the name of a directory to make")
        recover(target)
        check_place(target)
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
                found=_what_is_there(target), fix="name another, or remove it by hand",
            )


def _what_is_there(target: Path) -> str:
    if not target.is_dir():
        return "a file"
    first = min(path.name for path in target.iterdir())
    return f"a folder with {first} in it"


def check_file(path: Path, inputs: Inputs = ()) -> Path:
    """Where `replace_file` is to write the output `path`: its links are resolved, now and once.

    Raises OutputError if it could not be written, or does not stand apart from `inputs`. What killed commands have
    left of it is removed, and nothing is left behind.
    """
    with write_errors(path):
        device = _is_device(path)
        if device or (path.exists() and not path.is_file()):
            raise OutputError(
                f"output {path}", expected="the name of a file",
                found="a directory" if path.is_dir() and not device else "a device", fix="name a new file",
            )
        check_apart(path, inputs)
        place = _resolved(path, "the name of a file")
        if not place.parent.is_dir():
            raise OutputError(
                f"output {path}", expected="a directory to write it in", found=f"no directory {place.parent}",
                fix="make it, or write elsewhere",
            )
        _attempt(place.parent, path)
        remove_unfinished(place.parent, place.name)
    return place


def check_place(target: Path) -> None:
    """Raise OutputError or OSError if no directory can be made there; nothing is left behind."""
    folder = target.parent
    while not is_there(folder):
        folder = folder.parent
    _attempt(folder, target)


def _attempt(folder: Path, output: Path) -> None:
    """Make a file in a folder and remove it, and what killed commands have left of such attempts.

    Only the attempt tells: root may write everywhere but where the file system forbids it. Raises as `check_place`.
    """
    try:
        plain_mode(folder)
    except FileNotFoundError as error:  # as /proc says it
        raise OutputError(
            f"output {output}", expected="a place that can be written", found=str(error), fix="write elsewhere"
        ) from None
    with suppress(OSError):  # another user's, or a folder that may not be listed: neither hinders the output
        remove_unfinished(folder, PROBE)


def _resolved(path: Path, expected: str) -> Path:
    """An output's path with its links resolved; raises OutputError if they lead in a circle."""
    place = resolved(path)
    if place.is_symlink():
        raise OutputError(
            f"output {path}", expected=expected, found="links that lead in a circle", fix="name another"
        )
    return place


def _is_device(path: Path) -> bool:
    """Whether a link of the system's leads there, as /dev/stdout does: maybe to a file, which a new one would replace.

    /dev/shm has files of users.
    """
    for _ in range(MOST_LINKS):
        place = Path(os.path.realpath(path.parent), path.name)
        if not place.is_symlink():
            break
        if place.parent == Path("/dev") or place.is_relative_to("/proc"):
            return True
        path = place.parent / place.readlink()
    return False


def _is_ours(directory: Path) -> bool:
    if any((directory / name).exists() for name in OURS):
        return True
    if directory.is_dir() and all(_is_our_model(path) for path in directory.iterdir()):
        return True
    try:
        with open_file(directory / "config.json") as stream:
            config: Any = json.loads(stream.read(MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "glimmer"


def _is_our_model(directory: Path) -> bool:
    try:
        with open_file(directory / "config.pbtxt") as stream:
            return stream.read(len(TRITON_MARK)) == TRITON_MARK.encode()
    except OSError:
        return False
