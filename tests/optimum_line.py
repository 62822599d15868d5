"""The tests that need the extra `optimum`, which has another release of transformers than the rest is tested with."""

from __future__ import annotations

import pytest

from glimmer_export.exporter.cli.extras import require
from glimmer_export.runtime.contract import MissingExtraError

__all__ = ["ABSENT", "HAS_OPTIMUM", "needs_optimum"]

ABSENT = "optimum is not installed here: `make tests-optimum` has it in a folder of its own"


def _is_installed() -> bool:
    try:
        require("optimum")
    except MissingExtraError:
        return False
    return True


HAS_OPTIMUM = _is_installed()
needs_optimum = pytest.mark.skipif(not HAS_OPTIMUM, reason=ABSENT)
