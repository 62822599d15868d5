"""Kendall's tau, the paired bootstrap, and where answers part, on cases that can be reckoned by hand."""

from __future__ import annotations

import math
from itertools import combinations
from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.graphs.comparable import comparable_outputs
from glimmer_export.exporter.parity.figures import (
    LogProbabilityDifference,
    differences_of,
    first_difference_of,
    kendall_tau,
    log_probability_difference,
    paired_interval,
    score_snr_db,
)
from glimmer_export.exporter.parity.graph_errors import LEAST_SNR_DB, ObservedGraph
from glimmer_export.exporter.parity.inputs import Row
from glimmer_export.exporter.parity.sides import Reply
from glimmer_export.runtime.contract import GraphIO, IOTensor


def tau_by_pairs(first: list[int], second: list[int]) -> float | None:
    alike = otherwise = only_first = only_second = 0
    for one, other in combinations(range(len(first)), 2):
        product = (first[one] - first[other]) * (second[one] - second[other])
        alike += product > 0
        otherwise += product < 0
        only_first += first[one] != first[other]
        only_second += second[one] != second[other]
    if not only_first or not only_second:
        return None
    return (alike - otherwise) / sqrt(only_first * only_second)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=12))
def test_tau_is_that_of_all_pairs_with_ties(pairs):
    first, second = zip(*pairs, strict=True)
    expected = tau_by_pairs(first, second)
    found = kendall_tau(np.array(first, np.float32), np.array(second, np.float32))
    assert found == (None if expected is None else pytest.approx(expected))


def test_tau_of_equal_reversed_and_broken_scores():
    scores = np.array([3.0, 1.0, 2.0, -4.0], np.float32)
    assert kendall_tau(scores, 2 * scores + 1) == 1.0
    assert kendall_tau(scores, -scores) == -1.0
    assert kendall_tau(scores, np.full(4, np.nan, np.float32)) is None


def test_the_interval_of_no_difference_and_of_a_sure_one():
    assert paired_interval([], []) is None
    assert paired_interval([1.0, 0.0, 1.0], [1.0, 0.0, 1.0]) == (0.0, 0.0)
    assert paired_interval([1.0] * 50, [0.0] * 50) == (-1.0, -1.0)


def test_the_interval_is_that_of_the_binomial_and_of_pairs():
    """100 of 1,000 lost, none won: the loss is a binomial share, 10% +- 1.96 * sqrt(.1 * .9 / 1000)."""
    reference = [1.0] * 900 + [1.0] * 100
    candidate = [1.0] * 900 + [0.0] * 100
    low, high = paired_interval(reference, candidate)
    assert (low, high) == pytest.approx((-0.1186, -0.0814), abs=0.002)
    assert paired_interval(reference, candidate) == (low, high)
    assert paired_interval(candidate, reference) == pytest.approx((-high, -low), abs=0.002)


@pytest.mark.parametrize("seed", range(3))
def test_the_interval_covers_the_truth(seed):
    random = np.random.default_rng(seed)
    covered = 0
    for _ in range(100):
        differences = random.choice([-1.0, 0.0, 1.0], size=300, p=[0.06, 0.9, 0.04])
        low, high = paired_interval([0.0] * 300, list(differences), seed=seed)
        covered += low <= -0.02 <= high
    assert 88 <= covered <= 100


def test_where_answers_part():
    row = [Row(Question(f"q{place}", "w1", (), None, ()), [], []) for place in range(4)]
    references = [Reply((5, 6), "a", margins=(3.0, 2.0, 1.0)), Reply((5, 6), "a", margins=(3.0, 2.0, 1.0)),
                  Reply((5,), "b", margins=(4.0, 0.5)), Reply((7,), "c", margins=(1.0, 1.0))]  # fmt: skip
    candidates = [Reply((5, 6), "a"), Reply((5, 8), "d"), Reply((5, 9), "e"), Reply((), "")]
    found = differences_of(row, references, candidates)
    assert [(item.qid, item.step, item.margin) for item in found] == [("q1", 1, 2.0), ("q2", 1, 0.5), ("q3", 0, 1.0)]
    summary = first_difference_of(found)
    assert (summary.count, summary.steps, summary.margin_median) == (3, {"0": 1, "1": 2}, 1.0)
    assert summary.mean_step == pytest.approx(2 / 3)


def test_how_sure_both_are_of_equal_answers():
    def replies(*pairs):
        return [Reply(tokens, log_probability=value) for tokens, value in pairs]

    references = replies(((5,), -1.0), ((6,), -2.0), ((), -3.0), ((7,), -0.5), ((8,), -0.5))
    candidates = replies(((5,), -1.5), ((6,), -1.75), ((), -3.0), ((9,), -9.0), ((8,), None))
    # The variance of -1, -2 and -3 is 2/3, the mean square of 0.5, 0.25 and 0 is 0.3125 / 3.
    found = log_probability_difference(references, candidates)
    assert found == LogProbabilityDifference(3, 0.25, 0.5, pytest.approx(10 * math.log10(2 / 0.3125)))
    assert log_probability_difference(references[:3], references[:3]) == LogProbabilityDifference(3, 0, 0, math.inf)
    assert log_probability_difference(references[3:], candidates[3:]) is None
    broken = log_probability_difference(references[:1], replies(((5,), math.nan)))
    assert broken == LogProbabilityDifference(1, math.inf, math.inf, LEAST_SNR_DB)


def test_how_far_scores_stand_from_the_references():
    def replies(*scores):
        return [Reply((), scores=None if each is None else np.array(each, np.float32)) for each in scores]

    references = replies([1, 3], [0, 4], [7], None)
    shifted = replies([2, 4], [1, 5], [9], None)
    assert score_snr_db(references, shifted) == math.inf
    # Variances of 1 and 4, of an error of 0.25 and 0.
    assert score_snr_db(references, replies([1, 4], [0, 4], [7], None)) == pytest.approx(10 * math.log10(5 / 0.25))
    assert score_snr_db(references[:1], replies([1, math.nan])) == LEAST_SNR_DB
    assert score_snr_db(references[2:], shifted[2:]) is None


IO = GraphIO(
    (IOTensor("input_ids", "int32", ("batch", "tokens")), IOTensor("attention_mask", "int32", ("batch", "tokens"))),
    (IOTensor("hidden_states", "float32", ("batch", "tokens", 4)),),
)
INPUTS = {
    "input_ids": np.arange(1, 7, dtype=np.int32).reshape(2, 3),
    "attention_mask": np.array([[1, 1, 1], [1, 0, 0]], np.int32),
}


class Stub:
    """A graph whose states are its ids, changed."""

    def __init__(self, change):
        self._change = change

    def run(self, inputs):
        states = np.repeat(inputs["input_ids"][..., None], 4, axis=2).astype(np.float32)
        return {"hidden_states": self._change(states).astype(np.float32)}


def observed(change, runs: int = 2):
    graph = ObservedGraph("memory_encoder", Stub(lambda states: states), Stub(change), IO, max_runs=2)
    for _ in range(runs):
        graph.run(INPUTS)
    return graph


def test_error_by_graph_by_hand():
    assert observed(lambda states: states, runs=0).error is None
    error = observed(lambda states: states * 1.1).error
    assert error.snr_db == pytest.approx(20, abs=1e-3)
    assert error.cosine == pytest.approx(1)
    assert error.max_abs_err == pytest.approx(0.4, abs=1e-5)  # the row that is not padding ends with 4
    assert error.mean_abs_err == pytest.approx(0.1 * (1 + 2 + 3 + 4) / 6, abs=1e-6)
    assert observed(lambda states: -states).error.cosine == pytest.approx(-1)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_an_output_that_is_not_finite_has_no_signal(broken):
    error = observed(lambda states: states * broken).error
    assert (error.max_abs_err, error.snr_db, error.cosine) == (np.inf, LEAST_SNR_DB, 0.0)


def test_padding_counts_on_neither_side():
    def at_padding(states):
        states[1, 1:] = np.nan
        return states

    assert observed(at_padding).error.max_abs_err == 0


def test_only_so_many_runs_are_compared():
    runs = []
    observed(lambda states: runs.append(1) or states, runs=5)
    assert len(runs) == 2


def test_absent_passages_are_left_aside():
    inputs = {"question_mask": np.array([[1, 0]], np.int32), "memory_mask": np.array([[[1, 0], [0, 0]]], np.int32)}
    outputs = {
        "scores": np.array([[2.0, -np.inf]], np.float32), "rerank_states": np.ones((1, 2, 4, 3), np.float32),
        "next_token": np.zeros((1, 1), np.int32),
    }
    found = comparable_outputs(inputs, outputs)
    assert sorted(found) == ["rerank_states", "scores"]
    assert found["scores"].tolist() == [[2.0, 0.0]]
    assert found["rerank_states"][0, :, :, 0].tolist() == [[1, 0, 1, 0], [0, 0, 0, 0]]
