"""Turns and what is counted."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest

from glimmer_export.exporter.bench.measure import Answered, interleaved, measure, percentile_95


class Stand:
    """A contender that notes its turns."""

    def __init__(self, name: str, turns: list[object], tokens: int = 2) -> None:
        self._name, self._turns, self._tokens = name, turns, tokens

    def answer(self, batch):
        self._turns.append((self._name, batch))
        return Answered([[1] * self._tokens], {"graph": 0.0}, {"host": 0.0})


def test_each_has_one_turn_a_run_and_follows_every_other():
    turns = list(interleaved(["a", "b", "c"], 30))
    assert [run for run, _ in turns] == [run for run in range(30) for _ in "abc"]
    names = [name for _, name in turns]
    assert all(sorted(names[start : start + 3]) == ["a", "b", "c"] for start in range(0, 90, 3))
    before = Counter(pair for pair in pairwise(names) if pair[0] != pair[1])
    assert min(before[one, other] for one in "abc" for other in "abc" if one != other) >= 5
    assert turns == list(interleaved(["a", "b", "c"], 30))


def test_all_get_the_same_batch_of_a_run_and_warm_up_is_not_counted():
    turns: list[object] = []
    contenders = {name: Stand(name, turns) for name in "ab"}
    samples = measure(
        contenders, ["q0", "q1", "q2"], warmup=1, answer_tokens=2, between_runs=lambda: turns.append("ceilings")
    )
    assert turns[2] == turns[5] == "ceilings"
    answered = [turn for turn in turns if turn != "ceilings"]
    for run, batch in enumerate(("q0", "q1", "q2")):
        assert sorted(answered[2 * run : 2 * run + 2]) == [("a", batch), ("b", batch)]
    assert [len(samples[name].milliseconds) for name in "ab"] == [2, 2]
    assert samples["a"].outside_graphs() == samples["a"].milliseconds
    assert samples["a"].stage("graph") == samples["a"].stage("host") == [0.0, 0.0]


def test_an_answer_of_another_length_is_no_measurement():
    with pytest.raises(RuntimeError, match=r"a answered with \[3\] tokens instead of 2"):
        measure({"a": Stand("a", [], tokens=3)}, ["q"], warmup=0, answer_tokens=2)


def test_percentile():
    assert percentile_95([7.0]) == 7.0
    assert percentile_95(list(range(101))) == 95.0
