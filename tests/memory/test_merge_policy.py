"""Which parts are merged: few are left, each is written few times, and none is more than full."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.exporter.memory.merge_policy import PARTS, SEGMENT_PARTS, is_full, merged_from, small_runs

SIZES = st.lists(st.integers(1, 200), max_size=60)


def added(steps, most, parts=None):
    """Sizes after adding these one by one, the most small ones there ever were, and all that was written."""
    sizes, most_parts, written = [], 0, 0
    for step in steps:
        sizes.append(step)
        start = merged_from(sizes, most, parts)
        sizes[start:] = [sum(sizes[start:])]
        written += sizes[-1]
        small = next((place for place, size in enumerate(reversed(sizes)) if is_full(size, most)), len(sizes))
        most_parts = max(most_parts, small)
    return sizes, most_parts, written


@given(SIZES, st.integers(1, 400), st.integers(1, 9))
def test_nothing_is_lost_no_part_is_more_than_full_and_few_are_small(steps, most, parts):
    steps = [min(step, most) for step in steps]
    sizes, most_parts, _ = added(steps, most, parts)
    assert sum(sizes) == sum(steps)
    assert all(size <= most for size in sizes)
    assert most_parts <= max(parts, 2)  # of two that are too large together each stays


@given(SIZES, st.integers(1, 400), st.integers(1, 9))
def test_a_row_of_many_that_another_left_is_merged_to_as_few(sizes, most, parts):
    sizes = [min(size, most) for size in sizes if 2 * min(size, most) <= most]
    while len(sizes) > parts and sum(sizes) <= most:
        start = merged_from(sizes, most, parts)
        sizes[start:] = [sum(sizes[start:])]
        assert len(sizes) <= parts


@pytest.mark.parametrize("step", [1, 7, 10, 60])
@pytest.mark.parametrize(("parts", "times"), [(PARTS, 4), (5, 8), (SEGMENT_PARTS, 10)])
def test_a_day_of_equal_steps_is_written_few_times(step, parts, times):
    sizes, most_parts, written = added([step] * 1440, 1 << 20, parts)
    assert most_parts == parts
    assert len(sizes) <= parts
    assert written <= times * step * 1440


def test_what_is_large_is_seldom_written_again():
    sizes, _, _ = added([20_000, *[10] * 300], 1 << 20, SEGMENT_PARTS)
    assert sizes[0] == 20_000


def test_each_merge_is_of_what_has_most_behind_it_for_its_size():
    assert merged_from([100, 50, 10, 8, 4, 2], 1000, 5) == 1 + 1  # 14 behind 10, 6 behind 8, 24 behind 50
    assert merged_from([100, 50, 10, 8, 4, 2], 1000, 6) == 5
    assert merged_from([100, 50, 600, 8, 4, 2], 1000, 2) == 3


@given(SIZES, st.integers(1, 400))
def test_small_neighbours_fit_together_and_none_is_left_beside_another(sizes, most):
    sizes = [min(size, most) for size in sizes]
    runs = small_runs(sizes, most)
    assert all(len(run) > 1 and sum(sizes[run.start : run.stop]) <= most for run in runs)
    assert not any(is_full(sizes[place], most) for run in runs for place in run)
    packed, place = list[int](), 0
    for run in [*runs, range(len(sizes), len(sizes))]:
        packed += [*sizes[place : run.start], *([sum(sizes[run.start : run.stop])] if run else [])]
        place = run.stop
    pairs = pairwise(packed)
    assert all(is_full(one, most) or is_full(other, most) or one + other > most for one, other in pairs)
