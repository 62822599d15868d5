"""Turns and what is counted."""

from __future__ import annotations

import pytest

from exporter.bench.contender import Answered
from exporter.bench.measure import interleaved, measure, percentile_95


class Stand:
    """A contender that notes its turns."""

    def __init__(self, name: str, turns: list[object], tokens: int = 2) -> None:
        self._name, self._turns, self._tokens = name, turns, tokens

    def answer(self, batch):
        self._turns.append((self._name, batch))
        return Answered([[1] * self._tokens], {"graph": 0.0}, {"host": 0.0})


def test_each_has_one_turn_a_run_and_the_first_turn_goes_round():
    assert list(interleaved(["a", "b", "c"], 4)) == [
        (0, "a"), (0, "b"), (0, "c"), (1, "b"), (1, "c"), (1, "a"), (2, "c"), (2, "a"), (2, "b"), (3, "a"), (3, "b"),
        (3, "c"),
    ]


def test_all_get_the_same_batch_of_a_run_and_warm_up_is_not_counted():
    turns: list[object] = []
    contenders = {name: Stand(name, turns) for name in "ab"}
    samples = measure(
        contenders, ["q0", "q1", "q2"], warmup=1, answer_tokens=2, between_runs=lambda: turns.append("ceilings")
    )
    assert turns == [
        ("a", "q0"), ("b", "q0"), "ceilings", ("b", "q1"), ("a", "q1"), "ceilings", ("a", "q2"), ("b", "q2"),
    ]
    assert [len(samples[name].milliseconds) for name in "ab"] == [2, 2]
    assert samples["a"].outside_graphs() == samples["a"].milliseconds
    assert samples["a"].stage("graph") == samples["a"].stage("host") == [0.0, 0.0]


def test_an_answer_of_another_length_is_no_measurement():
    with pytest.raises(RuntimeError, match=r"a answered with \[3\] tokens instead of 2"):
        measure({"a": Stand("a", [], tokens=3)}, ["q"], warmup=0, answer_tokens=2)


def test_percentile():
    assert percentile_95([7.0]) == 7.0
    assert percentile_95(list(range(101))) == 95.0
