"""Blocks, their order, and what is counted; the clock is the contenders' own."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from itertools import pairwise

import pytest

from glimmer_export.exporter.bench.measure import Answered, BlockPlan, interleaved, measure, percentile_95

BATCHES = ["q0", "q1", "q2"]


class Hall:
    """Contenders that take known seconds by a clock that nothing else moves, and a list of what happened."""

    def __init__(self, **seconds: list[float]) -> None:
        """Seconds of each answer in turn; the last is that of all that follow."""
        self.now = 100.0
        self.events: list[tuple[str, object]] = []
        self.contenders = {name: Stand(self, name, list(taken)) for name, taken in seconds.items()}

    def measure(self, plan, tokens=2):
        return measure(
            self.contenders, BATCHES, plan, answer_tokens=tokens, watch=self.watch, clock=lambda: self.now,
            between_rounds=lambda: self.events.append(("round", None)),
        )

    @contextmanager
    def watch(self, name):
        self.events.append(("begin", name))
        yield
        self.events.append(("end", name))


class Stand:
    def __init__(self, hall, name, seconds):
        self._hall, self._name, self._seconds = hall, name, seconds

    def answer(self, batch):
        self._hall.events.append((self._name, batch))
        self._hall.now += self._seconds.pop(0) if len(self._seconds) > 1 else self._seconds[0]
        return Answered([[1, 1]], {"graph": 0.0}, {"host": 0.0})


def test_each_has_one_turn_a_run_and_follows_every_other():
    turns = list(interleaved(["a", "b", "c"], 30))
    assert [run for run, _ in turns] == [run for run in range(30) for _ in "abc"]
    names = [name for _, name in turns]
    assert all(sorted(names[start : start + 3]) == ["a", "b", "c"] for start in range(0, 90, 3))
    before = Counter(pair for pair in pairwise(names) if pair[0] != pair[1])
    assert min(before[one, other] for one in "abc" for other in "abc" if one != other) >= 5
    assert turns == list(interleaved(["a", "b", "c"], 30))


def test_a_turn_is_a_block_back_to_back_in_the_order_of_the_plan():
    hall = Hall(a=[1.0], b=[0.5])
    samples = hall.measure(BlockPlan(blocks=4, seconds=3.0))
    blocks = [name for kind, name in hall.events if kind == "begin"]
    assert blocks == [name for _, name in interleaved(["a", "b"], 4)]
    assert samples["a"].block_sizes == [3] * 4
    assert samples["b"].block_sizes == [6] * 4
    assert [event for event, _ in hall.events].count("round") == 4
    begun = [place for place, event in enumerate(hall.events) if event[0] == "begin"]
    for start in begun:
        name = hall.events[start][1]
        length = 1 + samples[name].block_sizes[0]
        assert {event for event, _ in hall.events[start + 1 : start + 1 + length]} == {name}
        assert hall.events[start + 1 + length] == ("end", name)


def test_the_first_of_a_block_is_left_out_and_the_very_first_is_cold():
    hall = Hall(a=[9.0, 1.0, 2.0, 5.0, 1.5, 2.5, 4.0, 3.0])
    samples = hall.measure(BlockPlan(blocks=3, seconds=3.0))["a"]
    assert samples.milliseconds == [1000, 2000, 1500, 2500, 3000]
    assert samples.first_ms == [9000, 5000, 4000]
    assert samples.cold_ms == 9000
    assert (samples.median_ms, samples.min_ms) == (2000, 1000)
    assert samples.block_sizes == [2, 2, 1]
    assert samples.outside_graphs() == samples.milliseconds
    assert samples.stage("graph") == samples.stage("host") == [0.0] * 5


def test_more_may_be_left_out_and_the_cold_one_is_still_the_first():
    samples = Hall(a=[9.0, 8.0, 1.0]).measure(BlockPlan(blocks=1, seconds=0.0, warmup=2))["a"]
    assert (samples.cold_ms, samples.milliseconds) == (9000, [1000])


def test_one_that_takes_longer_than_a_block_is_counted_once():
    samples = Hall(a=[18.0]).measure(BlockPlan(blocks=2, seconds=3.0))["a"]
    assert samples.block_sizes == [1, 1]


def test_all_begin_a_round_with_the_same_batch_and_go_round():
    hall = Hall(a=[1.0], b=[1.0])
    samples = hall.measure(BlockPlan(blocks=2, seconds=3.0))
    asked = {name: [batch for one, batch in hall.events if one == name] for name in "ab"}
    assert asked["a"] == asked["b"] == ["q0", "q1", "q2", "q0", "q1", "q2", "q0", "q1"]
    assert samples["a"].places == samples["b"].places == [1, 2, 0, 2, 0, 1]


@pytest.mark.parametrize(("budget", "rounds"), [(None, 5), (0.0, 1), (8.0, 1), (16.0, 2), (39.9, 4), (1000.0, 5)])
def test_a_budget_ends_with_a_whole_round(budget, rounds):
    hall = Hall(a=[1.0], b=[1.0])
    samples = hall.measure(BlockPlan(blocks=5, seconds=3.0, budget_seconds=budget))
    assert [len(samples[name].block_sizes) for name in "ab"] == [rounds, rounds]
    assert budget is None or rounds == 1 or hall.now - 100.0 <= budget


def test_an_answer_of_another_length_is_no_measurement():
    with pytest.raises(RuntimeError, match=r"a answered with \[2\] tokens instead of 3"):
        Hall(a=[1.0]).measure(BlockPlan(blocks=1, seconds=0.0), tokens=3)


def test_percentile():
    assert percentile_95([7.0]) == 7.0
    assert percentile_95(list(range(101))) == 95.0
