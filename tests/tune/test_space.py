"""Which switches apply, what they may be, and what is proposed of them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from glimmer_export.exporter.checkpoint import read_checkpoint
from glimmer_export.exporter.config.targets import read_target
from glimmer_export.exporter.demo.hard_world import HARD_CHECKPOINT
from glimmer_export.exporter.demo.world import CHECKPOINT
from glimmer_export.exporter.tune.goals import Goals
from glimmer_export.exporter.tune.measure import Lengths, Timed
from glimmer_export.exporter.tune.propose import ALONE, DEFAULT, OPTUNA, Proposer, together
from glimmer_export.exporter.tune.prune import pruned_codecs, pruned_methods
from glimmer_export.exporter.tune.reckon import unreachable
from glimmer_export.exporter.tune.space import SWITCHES, space_of
from glimmer_export.exporter.tune.trials import Trial
from glimmer_export.runtime.contract import CodecSnr, OptionError

LENGTHS = Lengths(12, 23, 3)


def space_for(target: str = "cpu", checkpoint=CHECKPOINT, **changes: object):
    config = read_checkpoint(checkpoint).config.model_copy(update=changes)
    return space_of(config, read_target(target), 3, num_passages=500, indexed=True, index="fts5")


def small():
    return only(space_for(), codec="int8,pq8x", k="5,10", m="1,3")


def only(space, **kept: str):
    """One value of every switch, the default's, but for those that are named."""
    texts = {name: str(space.default[name]).lower() for name in SWITCHES if space.default[name] is not None} | kept
    space = space.narrowed([f"{name}={values}" for name, values in texts.items()])
    return space if "mass" in kept else space.with_values("mass", [])


def test_the_default_is_that_of_the_other_commands():
    default = space_for().default
    assert [default[name] for name in ("codec", "stage_a", "precision", "k", "m", "mass", "weight_only")] == [
        "int8", "lazy", "int8", 10, 3, None, "none"
    ]


def test_only_what_applies_is_tried():
    gpu = space_for("t4")
    assert gpu.default["precision"] == "int8-fp16"
    assert [gpu.values[name] for name in ("weight_only", "draft_tokens", "threads")] == [("none",), (0,), (1,)]
    assert space_for(score_pooling="mean").values["stage_a"] == ("full",)
    lumen = space_for(architecture="lumen", num_selected=None, num_stage_a_layers=0)
    assert [lumen.values[name] for name in ("stage_a", "m", "mass")] == [(None,)] * 3
    fid = space_for(architecture="fid", num_selected=None, num_stage_a_layers=0, num_memory_layers=0)
    assert fid.values["codec"] == (None,)
    assert space_for(checkpoint=HARD_CHECKPOINT).default["k"] != 10


def test_values_are_narrowed_by_words_and_the_default_stays():
    space = space_for().narrowed(["k=4, 7", "codec=pq8x", "mass=0.5", "batch=8"])
    assert space.values["k"] == (10, 4, 7)
    assert space.values["codec"] == ("int8", "pq8x")
    assert space.values["mass"] == (None, 0.5)
    assert space.values["batch"] == (1, 8)
    assert space_for().narrowed(["codec=fp16", "codec=int4,fp16"]).values["codec"] == ("int8", "fp16", "int4")
    for text in ("k=0", "k", "codec=zip", "colour=red", "mass=2", "k=99999999999999999", "precision="):
        with pytest.raises(OptionError, match="--try"):
            space_for().narrowed([text])
    with pytest.raises(OptionError, match="applies"):
        space_for("t4").narrowed(["weight_only=int4"])


def test_points_that_would_be_built_and_asked_alike_are_one():
    space = small()
    assert space.size == len({point.values for point in space.points()}) == 8
    assert space.sound(space.default.having("k", 1))["m"] == 1
    wide = only(space_for(), precision="int8,fp32", method="max,mse")
    assert wide.size == 3


def told(number: int, point, right: int = 9) -> Trial:
    cost = 1 + number % 3
    return Trial(number, 0, "", point, cost, cost, Timed((1.0 + number,), (1.0,)), {}, [1.0] * right + [0.0])


def proposed(space, rounds: int, seed: int = 1):
    proposer, found = Proposer(space, seed), []
    for _ in range(rounds):
        points = proposer.next(6)
        start = len(found)
        found += points
        proposer.tell([told(start + place, point) for place, (_, point) in enumerate(points)])
    return proposer, found


def test_the_same_figures_give_the_same_proposals_none_twice():
    space = space_for()
    _, found = proposed(space, 8)
    assert found == proposed(space, 8)[1]
    assert found != proposed(space, 8, seed=2)[1]
    assert len({point for _, point in found}) == len(found)
    assert found[0] == (DEFAULT, space.default)
    alone = [point for who, point in found if who == ALONE]
    assert all(len(point.differs(space.default)) <= 2 for point in alone)
    assert set(alone) == set(space.one_apart())
    assert sum(who == OPTUNA for who, _ in found) >= 6


def test_what_pays_alone_is_tried_together():
    space = only(space_for(), codec="int8,pq8x", k="5,10", m="1,3", draft_tokens="4,0")
    default = space.default
    alone = {"codec": "pq8x", "k": 5, "m": 1, "draft_tokens": 0}
    costs = {"codec": 0.4, "k": 0.8, "m": 0.5, "draft_tokens": 1.1}
    trials = [replace(told(0, default, 9), timed=Timed((1.0,), (1.0,)), bundle_bytes=10, store_bytes=10)]
    for number, (name, value) in enumerate(alone.items(), start=1):
        trial = told(number, default.having(name, value))
        trial.right = [0.0] * 10 if name == "m" else trial.right  # of the cheaper ones, and it loses everything
        trials.append(replace(trial, timed=Timed((costs[name],), (1.0,)), bundle_bytes=10, store_bytes=10))
    assert together(space, trials) == [default.having("codec", "pq8x").having("k", 5)]


def test_a_small_space_is_tried_to_its_end():
    space = small()
    proposer, found = proposed(space, 12)
    assert proposer.exhausted
    assert {point for _, point in found} == set(space.points())
    assert proposer.next(6) == []


def test_codecs_that_another_is_better_than_or_that_a_wrong_sample_was_fitted_for_are_left_out():
    space = only(space_for(), codec="int8,fp16,pq8x,pq16x,int4")
    kept = {
        "int8": (CodecSnr(None, 44.0), 1000), "fp16": (CodecSnr(None, 70.0), 2000),
        "pq8x": (CodecSnr(20.0, 9.0), 300), "pq16x": (CodecSnr(12.0, 11.9), 200), "int4": (CodecSnr(None, 10.0), 500),
    }  # fmt: skip
    found = pruned_codecs(space, kept)
    assert found.values["codec"] == ("int8", "fp16", "pq16x")
    assert sum("not tried" in note and ("pq8x" in note or "int4" in note) for note in found.notes) == 2


def test_calibrators_that_give_the_same_graphs_are_one():
    space = only(space_for(), method="max,mse,entropy")
    found = pruned_methods(space, {"max": ["a", "b"], "mse": ["a", "b"], "entropy": ["a", "c"]})
    assert found.values["method"] == ("max", "entropy")


def test_what_cannot_be_reached_says_which_limit_binds_and_by_how_much():
    shape = read_checkpoint(CHECKPOINT).config.shape
    target = read_target("cpu")
    assert unreachable(Goals(1000.0, 1000.0, 0.0), shape, space_for(), target, LENGTHS, 500) == []
    both = unreachable(Goals(1e-5, 1e-5), shape, space_for(), target, LENGTHS, 500)
    assert {item.goal for item in both} == {"latency_ms", "store_gb"}
    assert both[0].least / both[0].limit >= both[1].least / both[1].limit
    for item in both:
        assert item.least > item.limit
        assert f"{item.least - item.limit:.4g}" in item.sentence()
    cheap = unreachable(Goals(store_gb=1e-5), shape, space_for(), target, LENGTHS, 500)[0]
    dear = unreachable(Goals(store_gb=1e-5), shape, only(space_for(), codec="int8"), target, LENGTHS, 500)[0]
    assert dear.least > cheap.least  # the codecs that are tried decide it
