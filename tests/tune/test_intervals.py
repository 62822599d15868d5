"""Intervals that know how little a few questions tell."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.exporter.tune.goals import MET, MISSED, UNDECIDED, standing_of_em, standing_of_figure
from glimmer_export.exporter.tune.intervals import Z, difference, questions_needed, share

PAIRS = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=60)


def pairs(both: int, gained: int, lost: int, neither: int = 0):
    own = [1.0] * both + [1.0] * gained + [0.0] * lost + [0.0] * neither
    other = [1.0] * both + [0.0] * gained + [1.0] * lost + [0.0] * neither
    return difference(own, other)


def test_a_share_is_wilsons():
    found = share([1.0] * 81 + [0.0] * 182)  # Newcombe 1998, table I: 81 of 263
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    assert share([1.0] * 20).low == pytest.approx(20 / (20 + Z * Z))


def test_a_paired_difference_is_tangos():
    """Without a question on which they differ its ends are Z^2 / (n + Z^2); with many it is the normal one."""
    found = pairs(1000, 0, 0)
    assert (found.low, found.high) == pytest.approx((-Z * Z / (1000 + Z * Z), Z * Z / (1000 + Z * Z)), rel=1e-6)
    many = pairs(80_000, 12_000, 8_000)
    deviation = math.sqrt(0.2 - 0.04**2) / math.sqrt(100_000)
    assert (many.low, many.high) == pytest.approx((0.04 - Z * deviation, 0.04 + Z * deviation), abs=2e-5)


@given(PAIRS)
def test_ends_stand_around_what_was_seen_and_change_sides_with_the_sides(found):
    own, other = zip(*found, strict=True)
    one, back = difference(own, other), difference(other, own)
    assert -1 <= one.low <= one.value <= one.high <= 1
    assert (one.low, one.high) == pytest.approx((-back.high, -back.low), abs=1e-9)


def test_how_many_questions_tell_a_limit():
    """1.5% of pairs differing and 0.3 points: 6,403 by the normal approximation, somewhat more by Tango's."""
    needed = questions_needed(0.015, 0.003)
    assert needed is not None
    assert 6_403 <= needed <= 6_700
    half = 0.015 * needed / 2
    assert -pairs(round(needed - 2 * half), round(half), round(half)).low == pytest.approx(0.003, rel=0.01)
    assert questions_needed(0.0, 0.003) == math.ceil(Z * Z * (1 - 0.003) / 0.003)
    assert questions_needed(0.015, 0.0) is None


def test_a_loss_is_met_by_its_bound_alone():
    """As many right is no proof: the verdict of few questions is that they are few, and how many it takes."""
    few = standing_of_em(0.3, pairs(197, 1, 1, 1))
    assert (few.word, few.met, few.found) == (UNDECIDED, False, 0.0)
    assert few.needed is not None
    assert few.needed > 200
    assert f"{few.needed:,} questions" in few.sentence()
    assert "met" not in few.sentence().replace("undecided", "")
    assert standing_of_em(0.3, pairs(9_900, 30, 30, 40)).word == MET
    assert standing_of_em(0.3, pairs(1_800, 10, 90, 100)).word == MISSED
    assert standing_of_em(0.0, pairs(100, 0, 0)).needed is None


def test_a_figure_says_by_how_much_it_is_above():
    over = standing_of_figure("latency_ms", 60.0, 72.5)
    assert (over.word, over.excess) == (MISSED, 12.5)
    assert "12.5 ms too much" in over.sentence()
    assert standing_of_figure("store_gb", 40.0, 40.0).met
    assert "model" in standing_of_figure("latency_ms", 60.0, 2.0, reckoned=True).word
