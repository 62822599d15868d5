"""Running statistics against the same statistics of all values at once."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from glimmer_export.calibration import histogram
from glimmer_export.calibration.histogram import BINS, HALF, RunningHistogram, RunningRange, limit_of

FLOATS = st.floats(-(2.0**99), 2.0**127, width=32)
CHUNKS = st.lists(arrays.arrays(np.float32, st.integers(0, 12), elements=FLOATS), min_size=1, max_size=6)


def counted(values: np.ndarray, limit: float) -> np.ndarray:
    """The histogram of a few values, one by one in exact arithmetic."""
    counts = np.zeros(BINS, np.int64)
    for value in map(float, values):
        place = int(abs(value) / limit * HALF)
        counts[HALF - 1 - place if value < 0 else HALF + place] += 1
    return counts


@given(CHUNKS)
def test_counts_do_not_depend_on_the_order(chunks):
    forward, backward = RunningRange(None), RunningRange(None)
    for chunk in chunks:
        forward.observe(chunk)
        forward._flush()
    for chunk in reversed(chunks):
        backward.observe(chunk)
    values = np.concatenate(chunks)
    assert forward.seen == bool(values.size)
    if values.size:
        first, second = forward.result(), backward.result()
        assert (first.minimum, first.maximum, first.limit) == (second.minimum, second.maximum, second.limit)
        assert (first.minimum, first.maximum, first.count) == (values.min(), values.max(), values.size)
        np.testing.assert_array_equal(first.histogram, second.histogram)
        np.testing.assert_array_equal(first.histogram, counted(values, first.limit))


@given(st.floats(0, 3e38))
def test_the_limit_is_the_smallest_power_of_two_above(amax):
    limit = limit_of(amax)
    assert math.frexp(limit)[0] == 0.5
    assert limit > amax
    assert limit == histogram.MIN_LIMIT or limit / 2 <= amax


def test_doubling_merges_pairs_around_the_centre():
    running = RunningHistogram()
    running.add(np.array([0.1, -0.1, 0.75, -0.75, 0.0], np.float32), 0.75)
    running.add(np.array([1.5, -3.0], np.float32), 3.0)
    assert running.limit == 4
    np.testing.assert_array_equal(
        running.counts, counted(np.array([0.1, -0.1, 0.75, -0.75, 0, 1.5, -3], np.float32), 4.0)
    )


def test_channels_are_those_of_the_last_axis():
    running = RunningRange(3)
    running.observe(np.array([[[1, -5, 0], [-2, 3, 0]]], np.float32))
    running.observe(np.array([[4, 0, 0]], np.float32))
    assert running.channel_amax.tolist() == [4, 5, 0]
    assert (running.result().minimum, running.result().maximum) == (-5, 4)


def test_what_hides_a_position_is_left_out():
    lowest = np.finfo(np.float32).min
    running = RunningRange(2)
    running.observe(np.array([[0.5, lowest], [lowest, lowest]], np.float32))
    running.observe(np.full((1, 2), lowest))
    found = running.result()
    assert (found.minimum, found.maximum, found.count, found.channel_amax) == (0.5, 0.5, 1, None)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("channels", [None, 2])
def test_what_is_not_finite_is_refused(value, channels):
    with pytest.raises(FloatingPointError):
        RunningRange(channels).observe(np.array([[0.0, value]], np.float32))


def test_nothing_and_zeros():
    running = RunningRange(0)
    running.observe(np.zeros((2, 0), np.float32))
    assert not running.seen
    zeros = RunningRange(None)
    zeros.observe(np.float32([[-0.0, 0.0]]))
    found = zeros.result()
    assert (found.amax, found.count, math.copysign(1, found.minimum)) == (0, 2, 1)
    scalar = RunningRange(None)
    scalar.observe(np.float32(3).reshape(()))
    assert scalar.result().count == 1


def test_of_a_large_tensor_whole_rows_are_counted_and_all_extremes_taken(monkeypatch):
    monkeypatch.setattr(histogram, "HISTOGRAM_VALUES", 8)
    values = np.ones((5, 4), np.float32)
    values[3] = [7, -9, 1, 1]
    running = RunningRange(4)
    running.observe(values)
    found = running.result()
    assert (found.minimum, found.maximum, found.count) == (-9, 7, 8)
    assert found.channel_amax.tolist() == [7, 9, 1, 1]
    flat = RunningRange(None)
    flat.observe(np.arange(20, dtype=np.float32))
    assert flat.result().count == 7


def test_shape_only_follows_channels_alone():
    running = RunningRange(2, shape_only=True)
    running.observe(np.ones((2, 2), np.float32))
    assert running.channel_amax.tolist() == [1, 1]
    assert not running.result().histogram.any()
