"""What takes long to make, made once for all processes that run the tests, in the folder of this run of pytest."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

__all__ = ["Once"]

Once = Callable[[str, Callable[[Path], object]], Path]
"""Called with a name and what fills an empty directory; returns the directory, filled. What is there is read only."""


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Fills a directory when its name is first asked for; other workers of pytest-xdist wait, and read the same."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each worker has a folder of its own below the run's
    root = root / "once"
    root.mkdir(exist_ok=True)

    def get(name: str, make: Callable[[Path], object]) -> Path:
        directory, done = root / name, root / f"{name}.done"
        with (root / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(directory, ignore_errors=True)  # a maker that failed leaves a part
                directory.mkdir()
                make(directory)
                done.touch()
        return directory

    return get
