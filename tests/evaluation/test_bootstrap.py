"""Intervals against distributions that are known."""

from __future__ import annotations

import numpy as np
import pytest

from glimmer_export.exporter.evaluation.bootstrap import RESAMPLES, interval, resampled_means


def test_two_questions_are_drawn_as_often_as_chance_has_it():
    means = resampled_means(np.array([[0.0, 1.0], [1.0, 1.0]]))
    assert means.shape == (RESAMPLES, 2)
    shares = [float((means[:, 0] == value).mean()) for value in (0.0, 0.5, 1.0)]
    assert shares == pytest.approx([0.25, 0.5, 0.25], abs=0.02)  # four standard errors of 10,000 draws
    assert (means[:, 1] == 1).all()
    low, high = interval(means)
    assert (low.tolist(), high.tolist()) == ([0.0, 1.0], [1.0, 1.0])


def test_a_share_of_many_questions_has_the_binomial_interval():
    right = np.array([1.0] * 300 + [0.0] * 700)[:, None]
    low, high = interval(resampled_means(right))
    half = 1.96 * np.sqrt(0.3 * 0.7 / 1000)
    assert (float(low[0]), float(high[0])) == pytest.approx((0.3 - half, 0.3 + half), abs=0.002)


def test_the_same_draws_serve_all_that_is_compared():
    """So that differences are paired: models that differ in two questions of 400 differ by little in every resample."""
    random = np.random.default_rng(1)
    first = random.integers(0, 2, 400).astype(np.float64)
    second = first.copy()
    second[:2] = 1 - first[:2]
    means = resampled_means(np.stack([first, second, first], axis=1))
    assert np.array_equal(means[:, 0], means[:, 2])
    expected = np.array([(second - first)[drawn].mean() for drawn in _drawn(400)])
    np.testing.assert_allclose(means[:, 1] - means[:, 0], expected, atol=1e-12)


def _drawn(questions: int) -> np.ndarray:
    """The draws themselves, which are part of what a seed gives."""
    return np.random.default_rng([0, 0]).integers(0, questions, (RESAMPLES, questions))


def test_a_question_without_the_figure_does_not_count():
    values = np.array([[1.0, np.nan], [0.0, np.nan], [np.nan, np.nan], [1.0, np.nan]])
    means = resampled_means(values)
    of_three = np.array([np.nanmean(row) if not np.isnan(row).all() else np.nan for row in values[_drawn(4), 0]])
    np.testing.assert_allclose(means[:, 0], of_three)
    low, high = interval(means)
    assert not np.isnan(low[0])
    assert np.isnan([low[1], high[1]]).all()


def test_many_questions_take_no_more_memory_and_another_task_draws_otherwise():
    values = np.random.default_rng(2).random((1000, 1))
    first, again, other = resampled_means(values), resampled_means(values), resampled_means(values, stream=1)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert float(first.std()) == pytest.approx(float(values.std() / np.sqrt(1000)), rel=0.05)
