"""Links in paths: one that a user gives is resolved once, and within a bundle or store none is written through.

What stands behind a link belongs to somebody else: a download cache, a data version control, another store. Reading
follows it; a change of a bundle or store that has one is refused by name before anything is done. An output stands
apart from what a command reads, whatever names and links lead to either.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from glimmer_export.runtime.contract import GlimmerError, OutputError

__all__ = [
    "Inputs", "check_apart", "link_or_copy", "links_below", "require_no_link", "require_no_link_below", "resolved",
]  # fmt: skip


def resolved(path: str | Path) -> Path:
    """A path that a user gives with its links resolved, as it stands if there is none; it need not exist."""
    given, real = Path(path), Path(os.path.realpath(path))
    return given if real == given.absolute() else real


def require_no_link(
    root: Path, names: Iterable[str], *, subject: str, error: type[GlimmerError] = OutputError
) -> None:
    """Raise `error` if a part of one of these paths below `root` is a link; `root` itself may be reached by one."""
    for name in names:
        place = root
        for part in PurePosixPath(name).parts:
            place /= part
            if place.is_symlink():
                raise _through(place, root, subject, error)


def require_no_link_below(
    root: Path, name: str = "", *, subject: str, error: type[GlimmerError] = OutputError
) -> None:
    """Raise `error` if the directory `name` below `root`, or anything in it, is a link; it may be absent."""
    require_no_link(root, [name], subject=subject, error=error)
    for link in links_below(root / name):
        raise _through(link, root, subject, error)


def links_below(directory: Path) -> Iterator[Path]:
    """The links in a directory and its own folders, none of which is followed; none if it is no directory.

    Hidden files and folders of the directory itself are left out: none of ours is called so, but what killed commands
    have left, which is removed and not followed.
    """
    folders = [directory]
    while folders:
        folder = folders.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:  # absent, or not to be listed
            continue
        for entry in entries:
            if folder == directory and entry.name.startswith("."):
                continue
            if entry.is_symlink():
                yield folder / entry.name
            elif entry.is_dir():
                folders.append(folder / entry.name)


def link_or_copy(source: str | Path, target: str | Path) -> None:
    """Give a file that nobody writes again a second name, or if that cannot be, a copy; a link stays a link.

    Raises OSError, as for a full disk.
    """
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError:  # another file system, too many names, or one without any
        shutil.copyfile(source, target, follow_symlinks=False)


def _through(link: Path, root: Path, subject: str, error: type[GlimmerError]) -> GlimmerError:
    return error(
        f"{subject}, {link.relative_to(root).as_posix()}", expected="a file or folder of its own, to change it",
        found=f"a link to {link.readlink()}", fix="copy it, following the links (`cp -rL`), and change the copy",
    )


Inputs = Sequence[str | Path | None]
"""Files and directories that a command reads, or its other outputs; None if an option was not given."""


def check_apart(target: Path, inputs: Inputs) -> None:
    """Raise OutputError if writing `target` would replace an input, what holds it, or a part of it.

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
