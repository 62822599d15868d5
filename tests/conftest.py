"""Fixtures that tests of several folders use."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["tests.exported"]

SHARED_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Data that stands beside the repository and not in it: T5's tokenizer, a tiny T5, questions and passages."""
    if not SHARED_DATA.is_dir():
        pytest.skip("../shared/data is not here: it is no part of the repository")
    return SHARED_DATA
