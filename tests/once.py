"""What takes long to make, made once for all processes that run the tests.

It stands in the folder of this run of pytest. What no release of transformers has a part in serves several runs, if
ONCE names a folder for it, as `make test` has it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

__all__ = ["Once"]

ONCE = "TESTS_ONCE"


class Once(Protocol):
    """Called with a name and what fills an empty directory; returns the directory, filled. What is there is read only.

    `for_all_runs`: what is made is the same whatever release of transformers is installed.
    """

    def __call__(self, name: str, make: Callable[[Path], object], *, for_all_runs: bool = False) -> Path: ...


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Fills a directory when its name is first asked for; other workers of pytest-xdist wait, and read the same."""
    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each worker has a folder of its own below the run's
    own = root / "once"
    common = Path(os.environ.get(ONCE, own))
    for folder in (own, common):
        folder.mkdir(parents=True, exist_ok=True)

    def get(name: str, make: Callable[[Path], object], *, for_all_runs: bool = False) -> Path:
        place = common if for_all_runs else own
        directory, done = place / name, place / f"{name}.done"
        with (place / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(directory, ignore_errors=True)  # a maker that failed leaves a part
                directory.mkdir()
                make(directory)
                done.touch()
        return directory

    return get
