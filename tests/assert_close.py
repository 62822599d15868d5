"""Comparison of arrays within the one table of tolerances."""

from __future__ import annotations

import numpy as np

from glimmer_export.exporter.tolerances import TOLERANCES

__all__ = ["assert_close"]


def assert_close(found: object, expected: object, name: str) -> None:
    """Assert that every element (numpy or torch) agrees within `TOLERANCES[name]`; infinities must be equal."""
    tolerance = TOLERANCES[name]
    np.testing.assert_allclose(
        np.asarray(found), np.asarray(expected), atol=tolerance.atol, rtol=tolerance.rtol, err_msg=tolerance.reason
    )
