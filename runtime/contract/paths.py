"""Paths named by files we do not trust."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from runtime.contract.errors import GlimmerError

__all__ = ["inside"]


def inside(
    directory: Path, name: str, *, error: type[GlimmerError], subject: str, follow_links: bool = False
) -> Path:
    """Path of `name` below `directory`; raises `error` where it is absolute, climbs out, or is reached by a link out.

    `follow_links` allows links out, where the user's own system made them. `name` is written with forward slashes,
    whatever the system.
    """
    relative = PurePosixPath(name)
    plain = name and not relative.is_absolute() and ".." not in relative.parts and not {"\\", "\0"} & set(name)
    if not plain or not (follow_links or _stays_inside(directory, relative)):
        raise error(
            subject, expected="file names that stay inside its directory", found=repr(name),
            fix="do not use this file; get it again from its source",
        )
    return directory / relative


def _stays_inside(directory: Path, relative: PurePosixPath) -> bool:
    return (directory / relative).resolve().is_relative_to(directory.resolve())
