"""What would overflow on the calibration data is refused by name."""

from __future__ import annotations

import pytest

from glimmer_export.calibration.fp16 import check_fp16
from glimmer_export.calibration.passes.convert_fp16 import ConvertFp16
from glimmer_export.calibration.tracked import TrackedRanges
from glimmer_export.runtime.contract import CalibrationError
from tests.calibration.fp16_graphs import graphs_of, tracked
from tests.exported import load_graph


@pytest.fixture
def half(glimmer):
    """A converted memory encoder and its ranges."""
    path, inputs = next(graphs_of(glimmer))
    model = load_graph(path)
    ranges = tracked(model, [inputs])
    ConvertFp16()(model)
    return model.graph, ranges


def output_of(graph, name):
    return next(node for node in graph if node.name.endswith(name)).outputs[0].name


def test_what_fits_passes(half):
    check_fp16(*half)


@pytest.mark.parametrize("node", ["DenseReluDense.wo/MatMul", "DenseReluDense/Mul", "SelfAttention.v/MatMul"])
def test_what_overflows_is_named_with_its_range(half, node):
    graph, ranges = half
    name = output_of(graph, node)
    ranges.multiply(name, 1e6 / ranges.amax(name))
    with pytest.raises(CalibrationError, match=rf"tensor {name}: expected at most 65504, .*found 1e\+06 on the cal"):
        check_fp16(graph, ranges)


def test_attention_scores_that_defeat_the_mask_are_named(half):
    graph, ranges = half
    name = output_of(graph, "SelfAttention/MatMul")
    ranges.multiply(name, 20_000 / ranges.amax(name))
    with pytest.raises(CalibrationError, match=rf"attention scores {name}: expected at most 8192 .*found 2e\+04"):
        check_fp16(graph, ranges)


def test_a_tensor_that_was_never_seen_is_named(half):
    graph, _ = half
    with pytest.raises(CalibrationError, match=r"expected a range in the calibration table, found none; calibrate"):
        check_fp16(graph, TrackedRanges({}))
