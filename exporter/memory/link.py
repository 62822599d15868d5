"""Give a file that nobody writes again a second name, or where that cannot be, a copy."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ["link"]


def link(source: Path, target: Path) -> None:
    """Make `target`, in a directory that is made where it is missing; raises OSError, as for a full disk."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:  # another file system, too many names, or one without any
        shutil.copyfile(source, target)
