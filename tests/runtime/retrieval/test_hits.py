"""The order of hits: equals by number, whatever order an engine gives them in; and rankings fused by rank."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.runtime.retrieval import Hit
from glimmer_export.runtime.retrieval.hits import HybridRetriever, first_of_equals, fuse, steady


class Engine:
    """Gives the best, equals in an order of its own, and counts what it was asked for."""

    def __init__(self, scores, order="shuffled"):
        self.hits, self.given, self.asked = [Hit(number, score) for number, score in enumerate(scores)], 0, 0
        if order == "shuffled":
            random.Random(1).shuffle(self.hits)
        elif order == "falling":
            self.hits.reverse()
        self.hits.sort(key=lambda hit: -hit.score)

    def __call__(self, limit, highest):
        found = [hit for hit in self.hits if highest is None or hit.number <= highest][:limit]
        self.given, self.asked = self.given + len(found), self.asked + 1
        return found


def engine(scores):
    return Engine(scores)


@pytest.mark.parametrize("count", [3, 40, 300])
@pytest.mark.parametrize("order", ["shuffled", "rising", "falling"])
def test_equals_come_by_number_however_many_there_are(count, order):
    fetch = Engine([*[1.0] * count, 2.0, *[0.5] * 7], order)
    assert [hit.number for hit in first_of_equals(fetch, 3)] == [count, 0, 1]


@pytest.mark.parametrize(("order", "asked"), [("rising", 2), ("shuffled", 40), ("falling", 40)])
def test_a_hundred_thousand_equals_are_not_fetched(order, asked):
    fetch = Engine([*[0.5] * 1000, *[1.0] * 100_000, 2.0], order)
    assert [hit.number for hit in first_of_equals(fetch, 5)] == [101_000, 1000, 1001, 1002, 1003]
    assert fetch.asked <= asked
    assert fetch.given <= 1000


@given(scores=st.lists(st.sampled_from([1.0, 2.0, 3.0]), max_size=300), top_k=st.integers(1, 60))
def test_the_first_of_equals_are_those_of_a_sort(scores, top_k):
    hits = [Hit(number, score) for number, score in enumerate(scores)]
    expected = sorted(hits, key=lambda hit: (-hit.score, hit.number))
    assert first_of_equals(Engine(scores), top_k) == expected[:top_k]


def test_fewer_than_asked_for_is_all():
    assert first_of_equals(engine([1.0, 3.0, 1.0]), 10) == [Hit(1, 3.0), Hit(0, 1.0), Hit(2, 1.0)]


@pytest.mark.parametrize("top_k", [0, -3])
def test_nothing_asked_for(top_k):
    assert first_of_equals(engine([1.0]), top_k) == []
    assert HybridRetriever([]).search("w1", top_k) == []


def test_the_last_bits_of_a_sum_make_no_order():
    assert steady(0.1 + 0.2) == steady(0.3)
    assert steady(12.3456789) == 12.346
    assert steady(-0.000123456) == -0.00012346


def test_fusion_adds_reciprocal_ranks():
    """By hand: passage 7 is second and first, 5 first alone, 9 third and second."""
    words = [Hit(5, 30.0), Hit(7, 20.0), Hit(9, 10.0)]
    vectors = [Hit(7, 0.9), Hit(9, 0.8)]
    expected = [(7, 1 / 62 + 1 / 61), (9, 1 / 63 + 1 / 62), (5, 1 / 61)]
    fused = fuse([words, vectors], 10)
    assert [hit.number for hit in fused] == [number for number, _ in expected]
    assert [hit.score for hit in fused] == pytest.approx([score for _, score in expected], abs=1e-12)
    assert fuse([words, vectors], 1) == fused[:1]


def test_fused_ties_go_to_the_lower_number():
    assert [hit.number for hit in fuse([[Hit(8, 1.0)], [Hit(3, 9.0)]], 2)] == [3, 8]


def test_a_passage_that_both_find_late_may_come_first():
    class Late:
        def __init__(self, own):
            self.own = own

        def search(self, question, top_k):
            return [*(Hit(self.own + number, 1.0) for number in range(19)), Hit(7, 0.5)][:top_k]

    (best,) = HybridRetriever([Late(100), Late(200)]).search("w1", 1)
    assert best.number == 7
