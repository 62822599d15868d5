"""What is dropped, what stands on the front, and what is chosen of it: on trials made by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from glimmer_export.exporter.tune.front import beats, front_of, lessons, nearest, ordered
from glimmer_export.exporter.tune.goals import Goals
from glimmer_export.exporter.tune.halving import rungs, why_dropped, why_not_asked
from glimmer_export.exporter.tune.measure import Timed
from glimmer_export.exporter.tune.space import SWITCHES, Point
from glimmer_export.exporter.tune.trials import NEARER, Trial, Trials

DEFAULT = Point(tuple({"k": 10, "codec": "int8"}.get(name, "one") for name in SWITCHES))


def answers(right: int, of: int = 1000) -> list[float]:
    return [1.0] * right + [0.0] * (of - right)


def trial(number: int, ratio: float, store: int, right: list[float], bundle: int = 1000, **switches: object) -> Trial:
    point = Point(tuple(switches.get(name, DEFAULT[name]) for name in SWITCHES))
    timed = Timed((10 * ratio,), (10.0,))
    return Trial(number, 0, "test", point, bundle, store, timed, {}, list(right))


def trials(*others: Trial, reference: int = 950) -> Trials:
    return Trials([trial(0, 1.0, 1000, answers(950)), *others], answers(reference))


def test_rungs_are_whole_batches_three_times_as_large_and_end_with_all():
    assert rungs(1500) == [48, 160, 496, 1500]
    assert rungs(100) == [100]
    for sizes in map(rungs, range(2, 3000, 37)):
        assert sizes == sorted(set(sizes))
        assert all(size % 8 == 0 for size in sizes[:-1])


def test_the_front_has_what_nothing_is_better_than():
    found = trials(
        trial(1, 0.5, 1000, answers(940)), trial(2, 0.5, 1000, answers(930)), trial(3, 2.0, 100, answers(950)),
        trial(4, 2.0, 1000, answers(950)), trial(5, 1.0, 1000, answers(960), 900),
    )
    assert [item.number for item in front_of(found.complete())] == [1, 5, 3]


def test_times_within_noise_and_the_names_in_a_codecs_graph_make_no_point_better():
    slower = trial(1, 1.03, 1000, answers(950), bundle=1004)
    faster = trial(2, 0.98, 1000, answers(950), bundle=998)
    assert [item.number for item in front_of(trials(slower, faster).complete())] == [0]


def test_a_point_is_dropped_where_its_interval_lies_beyond_the_limit():
    bad, doubtful = trial(1, 0.5, 10, answers(800)), trial(2, 0.5, 10, answers(940))
    found, goals = trials(bad, doubtful), Goals(em_loss=1.0)
    assert "15.00 points" in str(why_dropped(bad, found, goals))
    assert why_dropped(doubtful, found, goals) is None
    assert why_dropped(replace(bad, number=0), found, goals) is None
    assert why_dropped(bad, found, Goals()) is not None  # without a limit too, where it is hopeless
    assert why_dropped(trial(3, 0.5, 10, answers(900)), found, Goals()) is None


def test_a_point_goes_no_further_where_one_that_costs_no_more_has_surely_as_much_right():
    half = trial(1, 1.2, 2000, answers(450, 500))
    found, goals = trials(half), Goals(em_loss=50.0)
    assert "point 0" in str(why_dropped(half, found, goals))
    assert why_dropped(replace(half, store_bytes=900), found, goals) is None
    assert why_dropped(replace(half, right=answers(499, 500)), found, goals) is None


def test_what_cannot_meet_a_limit_is_not_asked():
    found = trials()
    assert "beyond 5" in str(why_not_asked(trial(1, 0.6, 10, []), found, Goals(latency_ms=5.0)))
    assert why_not_asked(trial(1, 0.4, 10, []), found, Goals(latency_ms=5.0)) is None
    assert "GB" in str(why_not_asked(trial(1, 0.4, 3 * 10**9, []), found, Goals(store_gb=2.0)))
    assert why_not_asked(found.default, found, Goals(latency_ms=5.0)) is None


def test_the_cheapest_that_meets_the_goals_is_chosen_first():
    small, quick = trial(1, 1.0, 100, answers(949)), trial(2, 0.5, 1000, answers(949))
    poor = trial(3, 0.4, 90, answers(930))
    found = trials(small, quick, poor)
    front = front_of(found.complete())
    assert [item.number for item in ordered(front, found, Goals(em_loss=1.0))] == [1, 2, 0]
    assert [item.number for item in ordered(front, found, Goals(em_loss=4.0))] == [3, 1, 2, 0]
    assert [item.number for item in ordered(front, found, Goals(latency_ms=6.0, em_loss=1.0))] == [2]
    assert [item.number for item in ordered(front, found, Goals(store_gb=1.5e-7, em_loss=1.0))] == [1]
    # What may lose more than the limit, as far as these questions tell, comes behind what surely does not.
    assert [item.number for item in ordered(front, found, Goals(em_loss=0.5))] == [0, 1, 2]
    assert [item.number for item in ordered(front, found, Goals(em_loss=0.0))] == [0]
    assert [item.number for item in ordered(front, found, Goals())] == [0]  # no limit: none with fewer right


def test_the_nearest_round_least_and_may_be_no_better_than_the_default():
    """Float as fast as INT8: dropped beside it in a search, and what is left where the gate fails INT8."""
    reference = DEFAULT.having("codec", "fp16").having("precision", "fp32")
    exact = trial(1, 1.0, 2000, answers(949), codec="fp16", precision="fp32")
    cheap, small = trial(2, 0.5, 1000, answers(960), precision="fp32"), trial(3, 0.5, 100, answers(960), codec="pq8x")
    found = trials(small, cheap, exact, reference=948)
    found.all.sort(key=lambda item: item.number)
    codecs = ["fp16", "int8"]
    order = nearest(found.complete(), found, Goals(), reference, codecs)
    assert [item.number for item in order] == [1, 2, 0, 3]
    half = replace(exact, right=answers(450, 500))
    assert why_dropped(half, found, Goals(em_loss=9.0)) is not None
    assert why_dropped(replace(half, by=NEARER), found, Goals(em_loss=9.0)) is None


def test_better_than_the_default_is_better_in_one_goal_and_worse_in_none():
    found = trials()
    goals = Goals(latency_ms=60.0, store_gb=1.0)
    assert beats(trial(1, 1.0, 100, answers(900)), found, goals) == ["store_gb"]
    assert beats(trial(1, 1.0, 100, answers(900)), found, Goals(store_gb=1.0, em_loss=1.0)) == []
    assert beats(trial(1, 0.5, 1001, answers(950)), found, goals) == []
    assert beats(trial(1, 0.98, 1000, answers(950)), found, goals) == []
    assert beats(trial(1, 0.5, 100, answers(951)), found, Goals()) == ["latency_ms", "store_gb", "em_loss"]


def test_lessons_are_of_one_switch_what_pays_most_first_and_what_surely_loses_last():
    found = trials(
        trial(1, 0.5, 1000, answers(950), k=5), trial(2, 1.0, 100, answers(950), codec="pq8x"),
        trial(3, 0.1, 100, answers(700), k=1), trial(4, 0.1, 100, answers(950), k=5, codec="pq8x"),
    )
    assert [(item.switch, item.value, round(item.pays)) for item in lessons(found)] == [
        ("codec", "pq8x", 10), ("k", 5, 2), ("k", 1, 100)
    ]


def test_a_point_is_read_back_and_says_where_it_differs():
    other = DEFAULT.having("k", 5)
    assert Point.from_json(other.to_json()) == other
    assert (other.differs(DEFAULT), other.words(DEFAULT), DEFAULT.words(DEFAULT)) == (["k"], "k 5", "the default")
    with pytest.raises(KeyError):
        Point.from_json({"k": 5})


@pytest.mark.parametrize(("own", "default"), [([], []), ([1.0], [1.0, 2.0]), ([0.0], [1.0]), ([1.0], [float("nan")])])
def test_times_of_a_journal_that_cannot_be_are_refused(own, default):
    found = trials()
    event = {"event": "built", "number": 0, "bundle_bytes": 1, "store_bytes": 1, "digests": {}}
    with pytest.raises(ValueError, match="times"):
        found.apply({**event, "own_ms": own, "default_ms": default})
