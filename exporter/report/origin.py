"""Where a report comes from: the command, the date, and the versions of what took part."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version

__all__ = ["Origin", "package_versions", "utc_now"]


@dataclass(frozen=True)
class Origin:
    """`command` makes the report again, empty if no command made it; `date` is UTC; `versions` are by package."""

    command: str
    date: str
    versions: dict[str, str]


def utc_now() -> str:
    """Date and time, UTC, to the second."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Python's version and that of each of these packages that is installed."""
    found = {"python": platform.python_version()}
    for name in dict.fromkeys(names):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
