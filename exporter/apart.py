"""Whether an output stands apart from what a command reads, whatever names and links lead to either."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from glimmer_export.runtime.contract import OutputError

__all__ = ["Inputs", "check_apart"]

Inputs = Sequence[str | Path | None]
"""Files and directories that a command reads, or its other outputs; None where an option was not given."""


def check_apart(target: Path, inputs: Inputs) -> None:
    """Raise OutputError where writing `target` would replace an input, what holds it, or a part of it.

    By whatever name: a link, a second name of the same file, or a file that an input directory has a link to.
    """
    place = Path(os.path.realpath(target))
    same = _identity(place)
    for source in inputs:
        if source is not None and (found := _meets(place, same, Path(source))):
            raise OutputError(
                f"output {target}", expected="a place apart from what is read", found=found, fix="name another"
            )


def _meets(place: Path, same: tuple[int, int] | None, source: Path) -> str | None:
    """How the output `place`, of the identity `same` if it is a file that exists, and an input touch each other."""
    other = Path(os.path.realpath(source))
    if place == other:
        return f"the input {source}"
    if place in other.parents:
        return f"a directory that holds the input {source}"
    if other in place.parents:
        return f"a place inside the input {source}"
    for path in _own_files_and_links(other):
        real = Path(os.path.realpath(path)) if path.is_symlink() else path
        if real == place or place in real.parents or (same is not None and real in place.parents):
            return f"what {path} of the input {source} is a link to"
        if same is not None and _identity(real) == same:
            return f"another name of {path} of the input {source}"
    return None


def _own_files_and_links(path: Path) -> Iterator[Path]:
    """The file itself, or all files and links of a directory; what links lead to is not gone through."""
    if not path.is_dir():
        yield path
    for folder, folders, files in os.walk(path):
        yield from (Path(folder, name) for name in files)
        yield from (link for name in folders if (link := Path(folder, name)).is_symlink())


def _identity(path: Path) -> tuple[int, int] | None:
    """The device and number of a file that exists; None for a directory, which has one name only."""
    with suppress(OSError, ValueError):
        if not stat.S_ISDIR((found := path.stat()).st_mode):
            return found.st_dev, found.st_ino
    return None
