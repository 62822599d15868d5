"""Paths named by files we do not trust."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from runtime.contract.errors import GlimmerError

__all__ = ["inside"]


def inside(directory: Path, name: str, *, error: type[GlimmerError], subject: str) -> Path:
    """Path of `name` below `directory`; raises `error` where it is absolute, climbs out, or is reached by a link out.

    `name` is written with forward slashes, whatever the system.
    """
    relative = PurePosixPath(name)
    plain = name and not relative.is_absolute() and ".." not in relative.parts and "\\" not in name and "\0" not in name
    if not plain or not (directory / relative).resolve().is_relative_to(directory.resolve()):
        raise error(
            subject, expected="file names that stay inside its directory", found=repr(name),
            fix="do not use this file; get it again from its source",
        )
    return directory / relative
