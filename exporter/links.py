"""Links in paths: one that a user gives is resolved once, and within a bundle or store none is written through.

What stands behind a link belongs to somebody else: a download cache, a data version control, another store. Reading
follows it; a change of a bundle or store that has one is refused by name before anything is done.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath

from glimmer_export.runtime.contract import GlimmerError, OutputError

__all__ = ["links_below", "require_no_link", "require_no_link_below", "resolved"]


def resolved(path: str | Path) -> Path:
    """A path that a user gives with its links resolved, as it stands where there is none; it need not exist."""
    given, real = Path(path), Path(os.path.realpath(path))
    return given if real == given.absolute() else real


def require_no_link(
    root: Path, names: Iterable[str], *, subject: str, error: type[GlimmerError] = OutputError
) -> None:
    """Raise `error` where a part of one of these paths below `root` is a link; `root` itself may be reached by one."""
    for name in names:
        place = root
        for part in PurePosixPath(name).parts:
            place /= part
            if place.is_symlink():
                raise _through(place, root, subject, error)


def require_no_link_below(
    root: Path, name: str = "", *, subject: str, error: type[GlimmerError] = OutputError
) -> None:
    """Raise `error` where the directory `name` below `root`, or anything in it, is a link; it may be absent."""
    require_no_link(root, [name], subject=subject, error=error)
    for link in links_below(root / name):
        raise _through(link, root, subject, error)


def links_below(directory: Path) -> Iterator[Path]:
    """The links in a directory and its own folders, none of which is followed; none where it is no directory.

    Hidden files and folders of the directory itself are left out: none of ours is called so, but what killed commands
    have left, which is removed and not followed.
    """
    for folder, folders, files in os.walk(directory):
        if folder == str(directory):
            folders[:], files[:] = ([name for name in names if name[0] != "."] for names in (folders, files))
        for name in (*folders, *files):
            path = Path(folder, name)
            if path.is_symlink():
                yield path


def _through(link: Path, root: Path, subject: str, error: type[GlimmerError]) -> GlimmerError:
    return error(
        f"{subject}, {link.relative_to(root).as_posix()}", expected="a file or folder of its own, to change it",
        found=f"a link to {link.readlink()}", fix="copy it, following the links (`cp -rL`), and change the copy",
    )
