"""How much of a channel's size moves into the weights."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glimmer_export.calibration.passes.balance import balance

SIZES = st.one_of(st.just(0.0), st.floats(2.0**-60, 2.0**60))


@given(
    amax=arrays(np.float64, 7, elements=SIZES), weight=arrays(np.float64, 7, elements=SIZES), strength=st.floats(0, 1)
)
def test_factors_are_positive_and_dead_channels_keep_their_size(amax, weight, strength):
    factor = balance(amax, weight, strength)
    assert np.isfinite(factor).all()
    assert (factor > 0).all()
    assert (factor[(amax == 0) | (weight == 0)] == 1).all()


@given(
    amax=arrays(np.float64, 7, elements=st.floats(0.01, 100)),
    weight=arrays(np.float64, 7, elements=st.floats(0.01, 1)),
    moved=arrays(np.float64, 7, elements=st.floats(2.0**-7, 2.0**7)), strength=st.floats(0, 1),
)
def test_the_result_does_not_depend_on_what_was_moved_before(amax, weight, moved, strength):
    """Scale moved between activations and weights comes back, but for one number for all channels."""
    plain, inflated = balance(amax, weight, strength), balance(amax * moved, weight / moved, strength)
    ratio = (amax * moved / inflated) / (amax / plain)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)


@pytest.mark.parametrize(("strength", "flat"), [(1.0, "activations"), (0.0, "weights")])
def test_at_either_end_one_side_is_flat(strength, flat):
    amax, weight = np.array([1.0, 8.0, 0.5]), np.array([2.0, 0.25, 1.0])
    factor = balance(amax, weight, strength)
    side = amax / factor if flat == "activations" else weight * factor
    np.testing.assert_allclose(side, side[0])


def test_half_way_both_sides_are_equal_but_for_one_number():
    amax, weight = np.array([1.0, 128.0, 0.5]), np.array([2.0, 0.25, 1.0])
    factor = balance(amax, weight, 0.5)
    ratio = (amax / factor) / (weight * factor)
    np.testing.assert_allclose(ratio, ratio[0])


def test_nothing_alive_moves_nothing():
    assert balance(np.zeros(3), np.ones(3), 0.5).tolist() == [1, 1, 1]
