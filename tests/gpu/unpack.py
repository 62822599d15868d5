"""Unpack what pack.py made: `python tests/gpu/unpack.py ARCHIVE FOLDER`, then FOLDER goes into PYTHONPATH.

The standard library alone, so that any Python 3.12 does it; a folder that is there already is left as it is.
"""

from __future__ import annotations

import sys
import tarfile
from pathlib import Path

__all__ = ["unpack"]


def unpack(archive: Path, folder: Path) -> None:
    """Unpack beside the folder and rename, so that a folder is whole or not there."""
    if folder.exists():
        return
    partial = folder.with_name(f"{folder.name}.partial")
    with tarfile.open(archive, "r:xz") as tar:
        tar.extractall(partial, filter="data")
    partial.rename(folder)


if __name__ == "__main__":
    unpack(Path(sys.argv[1]), Path(sys.argv[2]))
