"""Write beside the target, then rename: an output is whole or absent, and what stood there before is not lost."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from glimmer_export.exporter.apart import Inputs, check_apart
from glimmer_export.exporter.links import resolved
from glimmer_export.exporter.swap import new_directory, recover, swap_directory
from glimmer_export.exporter.whole_file import PROBE, plain_mode, remove_unfinished, replace_file, write_errors
from glimmer_export.runtime.contract import OutputError
from glimmer_export.runtime.contract.files import is_there, open_file

__all__ = [
    "Inputs", "check_apart", "check_file", "check_place", "check_target", "publish_directory", "replace_file",
    "write_errors",
]  # fmt: skip

OURS = ("manifest.json", "questions.jsonl")
"""One of these stands in every bundle, store and demo; a checkpoint has a config.json, as other programs' have."""
MAX_CONFIG_BYTES = 1 << 20
MOST_LINKS = 40
"""As many as Linux itself follows."""


@contextmanager
def publish_directory(target: Path, *, overwrite: bool = False, inputs: Inputs = ()) -> Iterator[Path]:
    """Yield a new directory beside `target`; on success it becomes `target`, on any error it is removed.

    Nobody can have put a link into it: its name is made up, and files in it may be written by their own names. Where
    `target` is a link, what it leads to is replaced, and the link stays.

    Raises OutputError as `check_target` does, and where the disk is full or not writable.
    """
    check_target(target, overwrite=overwrite, inputs=inputs)
    target = resolved(target)
    with write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with new_directory(target) as work:
            yield work
            swap_directory(work, target)


def check_target(target: Path, *, overwrite: bool, inputs: Inputs = ()) -> None:
    """Raise OutputError where `target` exists and may not be replaced, is not ours to replace, or is in use as input.

    Also where nothing can be made in the folder that it is to stand in, or in the nearest one there is. What a killed
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
                found="other files" if target.is_dir() else "a file", fix="name another, or remove it by hand",
            )


def check_file(path: Path, inputs: Inputs = ()) -> Path:
    """Where `replace_file` is to write the output `path`: its links are resolved, now and once.

    Raises OutputError where it could not be written, or does not stand apart from `inputs`. What killed commands have
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
    """Raise OutputError or OSError where no directory can be made there; nothing is left behind."""
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
    """An output's path with its links resolved; raises OutputError where they lead in a circle."""
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
    try:
        with open_file(directory / "config.json") as stream:
            config: Any = json.loads(stream.read(MAX_CONFIG_BYTES))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(config, dict) and config.get("model_type") == "glimmer"
