"""n of N: never only the first part of them."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.calibration.spread import spread


@given(st.integers(0, 5000), st.integers(1, 1500))
def test_from_the_first_to_the_last_in_even_steps(count, limit):
    found = spread(range(count), limit)
    assert len(found) == min(count, limit)
    steps = {later - earlier for earlier, later in pairwise(found)}
    assert not steps or max(steps) - min(steps) <= 1
    assert min(steps, default=1) >= 1
    if limit > 1 and count:
        assert (found[0], found[-1]) == (0, count - 1)


def test_none_and_all():
    assert spread("abc", 0) == []
    assert spread("abc", 3) == spread("abc", 9) == ["a", "b", "c"]
