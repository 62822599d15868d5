"""Which parts are merged: few are left, each is written few times, and none is more than full."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.exporter.memory.tiers import FACTOR, SEGMENT_FACTOR, is_full, small_runs, to_merge

SIZES = st.lists(st.integers(1, 200), max_size=60)


def after(sizes, runs):
    """Sizes once the runs are merged."""
    merged, place = [], 0
    for run in [*runs, range(len(sizes), len(sizes))]:
        merged += [*sizes[place : run.start], *([sum(sizes[run.start : run.stop])] if run else [])]
        place = run.stop
    return merged


def added(steps, most, factor=None):
    """Sizes after adding these one by one, the most parts there ever were, and all that was written."""
    sizes, most_parts, written = [], 0, 0
    for step in steps:
        runs = to_merge([*sizes, step], most, factor)
        before = [*sizes, step]
        if not runs or runs[-1].stop <= len(sizes):
            written += step
        written += sum(sum(before[run.start : run.stop]) for run in runs)
        sizes = after(before, runs)
        most_parts = max(most_parts, len(sizes))
    return sizes, most_parts, written


@given(SIZES, st.integers(1, 400))
def test_nothing_is_lost_and_no_part_is_more_than_full(steps, most):
    sizes, _, _ = added([min(step, most) for step in steps], most)
    assert sum(sizes) == sum(min(step, most) for step in steps)
    assert all(size <= most for size in sizes)


@pytest.mark.parametrize("step", [1, 7, 10, 60])
@pytest.mark.parametrize("most", [4096, 1 << 20])
@pytest.mark.parametrize("factor", [FACTOR, SEGMENT_FACTOR])
def test_a_day_of_equal_steps_is_in_few_parts_and_is_written_few_times(step, most, factor):
    steps = 1440
    sizes, most_parts, written = added([step] * steps, most, factor)
    full = sum(is_full(size, most) for size in sizes)
    assert most_parts <= full + (factor - 1) * (1 + math.ceil(math.log(steps, factor)))
    assert written <= (2 + math.ceil(math.log(steps, factor))) * step * steps


@given(SIZES, st.integers(1, 400))
def test_small_neighbours_fit_together_and_none_is_left_beside_another(sizes, most):
    sizes = [min(size, most) for size in sizes]
    runs = small_runs(sizes, most)
    assert all(len(run) > 1 and sum(sizes[run.start : run.stop]) <= most for run in runs)
    assert not any(is_full(sizes[place], most) for run in runs for place in run)
    packed = after(sizes, runs)
    pairs = pairwise(packed)
    assert all(is_full(one, most) or is_full(other, most) or one + other > most for one, other in pairs)
