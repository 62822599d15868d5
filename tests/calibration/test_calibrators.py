"""Calibrators against brute force over the values themselves, and what all of them promise."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glimmer_export.calibration.calibrators import (
    METHODS,
    EntropyCalibrator,
    PercentileCalibrator,
    bounds,
    calibrator,
    divergence,
    magnitude_percentile,
)
from glimmer_export.calibration.histogram import BINS, RunningRange
from glimmer_export.runtime.contract import OptionError

HALF = BINS // 2


def tensor_of(values):
    running = RunningRange(None)
    running.observe(np.asarray(values, np.float32))
    return running.result()


def outliers(*, seed=0, size=50_000, scale=40.0, share=2e-5):
    """A normal distribution with a few values far outside."""
    random = np.random.default_rng(seed)
    values = random.standard_normal(size).astype(np.float32)
    values[: max(1, int(size * share))] = scale
    return values


def squared_error(values, amax, levels=127):
    step = amax / levels
    return float(np.mean((values - np.clip(np.rint(values / step), -levels, levels) * step) ** 2))


@pytest.mark.parametrize("method", METHODS)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50))
def test_an_amax_is_at_most_the_tensors_own(method, values):
    tensor = tensor_of(values)
    amax = calibrator(method).amax(tensor)
    assert 0 <= amax <= tensor.amax
    assert amax > 0 or tensor.amax == 0
    low, high = bounds(tensor, calibrator(method))
    assert tensor.minimum <= low <= tensor.maximum or low == -amax
    assert high == min(tensor.maximum, amax)


def test_max_clips_nothing():
    assert calibrator("max").amax(tensor_of([-3, 2])) == 3
    assert bounds(tensor_of([-3, 2]), calibrator("max")) == (-3, 2)
    assert bounds(tensor_of([1, 2]), calibrator("max")) == (1, 2)


@pytest.mark.parametrize("percent", [50, 99, 99.9])
def test_percentile_is_numpys_to_the_width_of_a_bin(percent):
    values = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
    tensor = tensor_of(values)
    exact = np.percentile(np.abs(values), percent, method="inverted_cdf")
    assert exact <= magnitude_percentile(tensor, percent) <= exact + tensor.limit / HALF


def test_percentile_drops_rare_outliers_and_keeps_common_values():
    assert PercentileCalibrator().amax(tensor_of(outliers())) < 6
    assert PercentileCalibrator(100).amax(tensor_of(outliers())) == 40


@pytest.mark.parametrize("scale", [4.5, 40.0, 500.0])
def test_mse_is_within_a_percent_of_the_best_clipping_point(scale):
    values = outliers(scale=scale)
    amax = calibrator("mse").amax(tensor_of(values))
    best = min(squared_error(values, amax) for amax in np.geomspace(scale / 64, scale, 400))
    assert squared_error(values, amax) <= best * 1.05


def brute_divergence(magnitudes, bins, levels):
    """The same divergence, bin by bin."""
    true = [float(count) for count in magnitudes[:bins]]
    true[-1] += float(sum(magnitudes[bins:]))
    members = [[place for place in range(bins) if place * levels // bins == level] for level in range(levels)]
    quantised = [0.0] * bins
    for places in members:
        filled = [place for place in places if true[place] > 0]
        for place in filled:
            quantised[place] = float(sum(magnitudes[place] for place in places)) / len(filled)
    distributions = []
    for counts in (true, quantised):
        empty = sum(count == 0 for count in counts)
        taken = 1e-4 * empty / (bins - empty)
        smooth = [1e-4 if count == 0 else max(count - taken, 1e-4) for count in counts]
        distributions.append([value / sum(smooth) for value in smooth])
    return sum(p * math.log(p / q) for p, q in zip(*distributions, strict=True))


@given(st.lists(st.integers(0, 50), min_size=12, max_size=12), st.integers(4, 12))
def test_divergence_is_that_of_the_definition(counts, bins):
    magnitudes = np.array(counts, np.int64)
    found = divergence(magnitudes, bins, 4)
    if magnitudes[:bins].any():
        assert found == pytest.approx(brute_divergence(counts, bins, 4), abs=1e-9)
    else:
        assert found == math.inf


def test_entropy_drops_outliers_as_onnx_runtimes_does():
    """Within a tenth: ONNX Runtime's rounds counts down and looks at both sides at once.

    The values are a normal distribution's quantiles: where a sample's tail ends is luck, and both follow it.
    """
    from onnxruntime.quantization.calibrate import HistogramCollector

    size, scale = 400_000, 20.0
    values = np.array([NormalDist().inv_cdf((place + 0.5) / size) for place in range(size)], np.float32)
    values[size // 10 :: size // 8] = scale
    found = EntropyCalibrator().amax(tensor_of(values))
    # Its search is quadratic in Python: bins enough for two a level.
    histogram, edges = np.histogram(values, 513, (-scale, scale))
    collector = HistogramCollector("entropy", True, 513, 128, 99.99, "same")
    low, high = collector.get_entropy_threshold((histogram, edges, -scale, scale), 128)[:2]
    assert found < 7
    assert found == pytest.approx(max(-float(low), float(high)), rel=0.1)


def test_unknown_method():
    with pytest.raises(OptionError, match="max, percentile, entropy, mse"):
        calibrator("best")
