"""The tests' one table of tolerances: how far a result may stand from its reference, and why."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

__all__ = ["TOLERANCES", "Tolerance", "assert_close"]


@dataclass(frozen=True)
class Tolerance:
    """Every element may differ by `atol + rtol * |expected|`."""

    atol: float
    rtol: float
    reason: str


TOLERANCES = {
    "encoder_states": Tolerance(
        1e-5, 1e-5, "the same float32 products in another order; a final norm keeps the states near 1"
    ),
    "residual_stream": Tolerance(
        1e-5, 1e-5, "as encoder_states, without the norm: the relative part follows the stream's growth over the layers"
    ),
    "logits": Tolerance(
        1e-4, 1e-5, "a sum of d_model products of states, each off by what encoder_states allows"
    ),
    "fp16_codec": Tolerance(
        1e-5, 2.0**-11, "11 significant bits: half a unit of the last; and float32 in a batch of another shape"
    ),
    "scores": Tolerance(1e-5, 1e-5, "one dot product with a state of the residual stream"),
}


def assert_close(found: object, expected: object, name: str) -> None:
    """Assert that two arrays (numpy or torch) agree within `TOLERANCES[name]`; infinities must be equal."""
    tolerance = TOLERANCES[name]
    np.testing.assert_allclose(
        np.asarray(found), np.asarray(expected), atol=tolerance.atol, rtol=tolerance.rtol, err_msg=tolerance.reason
    )
