"""Q/DQ as each target wants it: codes, scales and zero points."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from glimmer_export.calibration.linear import constant, find_linears
from glimmer_export.calibration.passes.fold_weights import FoldWeights
from glimmer_export.calibration.passes.insert_qdq import InsertQDQ, activation_scale, quantize_weight, representable
from glimmer_export.calibration.scheme import ARM, TENSORRT, X86, X86_VNNI, Scheme
from tests.calibration.fp16_graphs import every_value, graphs_of, run
from tests.exported import load_graph

SCHEMES = {"x86-vnni": X86_VNNI, "x86": X86, "arm": ARM, "tensorrt": TENSORRT}
WEIGHTS = arrays(np.float32, (5, 7), elements=st.floats(-1e4, 1e4, width=32))


def quantised(source, scheme: Scheme, graph: str = "live_stage_b"):
    path, inputs = next((path, inputs) for path, inputs in graphs_of(source) if path.stem == graph)
    model = load_graph(path)
    FoldWeights()(model)
    values = every_value(model, inputs)
    names = frozenset(linear.name for linear in find_linears(model.graph))
    InsertQDQ(lambda name: (float(values[name].min()), float(values[name].max())), scheme, names)(model)
    return path, model, inputs, names


@pytest.mark.parametrize("name", SCHEMES)
def test_every_product_reads_a_pair_and_a_weight_by_column(glimmer, name):
    scheme = SCHEMES[name]
    path, model, inputs, names = quantised(glimmer, scheme)
    found = 0
    for node in model.graph:
        if node.name not in names:
            continue
        found += 1
        activation, weight = (value.producer() for value in node.inputs)
        assert (activation.op_type, weight.op_type) == ("DequantizeLinear", "DequantizeLinear")
        assert activation.inputs[0].producer().op_type == "QuantizeLinear"
        zero_point, scale = constant(activation.inputs[2]), constant(activation.inputs[1])
        assert zero_point.dtype == (np.uint8 if scheme.unsigned else np.int8)
        assert zero_point.ndim == scale.ndim == 0
        assert scheme.unsigned or zero_point == 0
        assert scale > 0
        codes, scales = constant(weight.inputs[0]), constant(weight.inputs[1])
        assert codes.dtype == np.int8
        assert np.abs(codes.astype(int)).max() <= scheme.weight_levels
        assert scales.shape == (codes.shape[1],)
        assert weight.attributes["axis"].value == 1
        assert len(weight.inputs) == 2
        assert (scales > 0).all()
        if scheme.half_scales:
            for number in (scale, scales):
                assert np.array_equal(number, number.astype(np.float16).astype(np.float32))
    assert found == len(names)
    expected = run(load_graph(path), inputs)
    for output, values in run(model, inputs).items():
        assert values.shape == expected[output].shape
        assert np.isfinite(values).all()


def test_products_of_one_value_share_its_pair(glimmer):
    _, model, _, names = quantised(glimmer, TENSORRT)
    read = {node.inputs[0] for node in model.graph if node.name in names}
    pairs = [node for node in model.graph if node.op_type == "QuantizeLinear"]
    assert len(pairs) == len(read) < len(names)


def test_no_float_weight_is_left_behind(glimmer):
    _, model, _, _ = quantised(glimmer, X86)
    assert not any(constant(value).ndim == 2 and constant(value).dtype == np.float32 and name.endswith("transpose")
                   for name, value in model.graph.initializers.items())


def test_nothing_is_named_nothing_is_done(glimmer):
    path, _ = next(graphs_of(glimmer))
    model = load_graph(path)
    assert not InsertQDQ(lambda name: (0, 1), X86, frozenset())(model).modified


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@given(weight=WEIGHTS)
def test_a_weight_is_off_by_half_a_scale_at_most(scheme, weight):
    for axis in (0, 1, None):
        codes, scale = quantize_weight(weight, axis, scheme)
        assert codes.dtype == np.int8
        assert np.abs(codes.astype(int)).max(initial=0) <= scheme.weight_levels
        along = scale if axis is None else np.expand_dims(scale, 1 - axis)
        assert (scale > 0).all()
        error = np.abs(codes.astype(np.float64) * along - weight)
        assert (error <= along * 0.5 * (1 + 1e-5)).all()


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
def test_a_dead_column_has_codes_of_zero(scheme):
    codes, scale = quantize_weight(np.array([[0, 1], [0, -2]], np.float32), 1, scheme)
    assert codes[:, 0].tolist() == [0, 0]
    assert codes[1, 1] == -scheme.weight_levels
    assert np.isfinite(scale).all()
    assert (scale > 0).all()


ENDS = st.floats(-1e4, 1e4)


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=SCHEMES)
@given(one=ENDS, other=ENDS)
def test_both_ends_and_zero_are_among_the_codes(scheme, one, other):
    low, high = min(one, other), max(one, other)
    scale, zero_point = activation_scale(low, high, scheme)
    info = np.iinfo(zero_point.dtype)
    assert scale > 0
    for end in (low, high, 0.0):
        code = np.clip(np.rint(end / float(scale)) + int(zero_point), info.min, info.max)
        assert abs((code - int(zero_point)) * float(scale) - end) <= float(scale) * 1.001
    assert scheme.unsigned or zero_point == 0


@given(scale=st.floats(0, 60000, width=32))
def test_a_scale_that_half_precision_holds_is_not_smaller(scale):
    found = representable(np.float32(scale), TENSORRT)
    assert found > 0
    assert found >= np.float32(scale)
    assert found == found.astype(np.float16).astype(np.float32)
