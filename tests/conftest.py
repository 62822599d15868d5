"""Fixtures that tests of several folders use."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["tests.once", "tests.exported", "tests.traced"]

TESTS = Path(__file__).resolve().parent
BEGUN_FIRST = (
    "engines/test_compiles.py", "docs/test_run.py", "calibration/test_inflated.py", "graphs/test_codecs.py",
    "parity/test_compare.py", "memory/runners/test_ray.py", "bench/test_run.py", "packaging/test_runtime_venv.py",
    "cli/test_missing_extras.py", "graphs/test_tied_sizes.py", "bench/gpu/test_parts.py",
)
"""The files that take longest: begun last, one worker would be at them while the others are idle."""
settings.register_profile("untimed", deadline=None)  # machines are noisy, and no test asserts a time
settings.load_profile("untimed")
SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


def pytest_configure(config: pytest.Config) -> None:
    """Have pytest-xdist keep the order of the files: of its own accord it begins with those of the most tests."""
    config.option.loadscopereorder = False
    assert all((TESTS / name).is_file() for name in BEGUN_FIRST), "a file of BEGUN_FIRST was moved"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first, and change no other order."""
    first = {TESTS / name: place for place, name in enumerate(BEGUN_FIRST)}
    items.sort(key=lambda item: first.get(item.path, len(first)))


def pytest_collection_finish() -> None:
    """Leave what collecting the tests has imported out of every search for garbage: it stays until the end."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Data that stands beside the repository and not in it: T5's tokenizer, a tiny T5, questions and passages."""
    if not SHARED_DATA.is_dir():
        pytest.skip("../shared/data is not here: it is no part of the repository")
    return SHARED_DATA
