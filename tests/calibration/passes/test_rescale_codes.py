"""Lazy stage A reads raw memory codes: brought near 1, its products hold in FP16."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from glimmer_export.calibration.fp16 import check_fp16
from glimmer_export.calibration.passes.convert_fp16 import ConvertFp16
from glimmer_export.calibration.passes.rescale_codes import RescaleCodes
from glimmer_export.calibration.passes.round_fp16 import RoundFp16
from glimmer_export.exporter.tolerances import TOLERANCES, max_abs_error
from tests.calibration.fp16_graphs import every_value, graphs_of, run, tracked
from tests.exported import load_graph

VARIANT = "glimmer, exact algebra"


@pytest.fixture
def lazy(exported):
    """The graph of a lazy stage A of one layer, with codes as large as the codec makes them."""
    path, inputs = next(each for each in graphs_of(exported(VARIANT)) if each[0].stem == "live_stage_a")
    codes = inputs["memory"].astype(np.float32)
    factor = (2**15 - 32) / np.abs(codes).max((2, 3), keepdims=True)
    scale = inputs["memory_scale"] / factor[:, :, 0, 0]
    scale = 2.0 ** np.round(np.log2(scale))
    return path, {**inputs, "memory": (codes * factor).astype(np.float16), "memory_scale": scale.astype(np.float32)}


def test_it_is_exact_and_the_ranges_follow(lazy):
    path, inputs = lazy
    expected = run(load_graph(path), inputs)
    model = load_graph(path)
    ranges = tracked(model, [inputs])
    assert RescaleCodes(ranges)(model).modified
    assert np.array_equal(run(model, inputs)["scores"], expected["scores"])
    for name, values in every_value(model, inputs).items():
        finite = values[np.isfinite(values)]
        if name in ranges and finite.size:
            assert ranges.amax(name) == pytest.approx(np.abs(finite).max(), rel=1e-3), name


@pytest.mark.parametrize("rescale", [True, False])
def test_either_the_codes_are_rescaled_or_their_products_stay_in_fp32(lazy, rescale):
    path, inputs = lazy
    expected = run(load_graph(path), inputs)["scores"]
    model = load_graph(path)
    ranges = tracked(model, [inputs])
    if rescale:
        RescaleCodes(ranges)(model)
    convert = ConvertFp16(ranges)
    convert(model)
    assert [line.partition(":")[0] for line in convert.kept_fp32] == ([] if rescale else ["MatMul.3", "MatMul.5"])
    assert all(" reaches " in line for line in convert.kept_fp32)
    check_fp16(model.graph, ranges)
    RoundFp16()(model)
    assert max_abs_error(run(model, inputs)["scores"], expected) <= TOLERANCES["fp16"].limit(expected)


def test_converted_without_it_the_codes_overflow(lazy):
    path, inputs = lazy
    model = load_graph(path)
    (query,) = (value for name, value in model.graph.initializers.items() if "SelfAttention.q." in name)
    query.const_value = ir.tensor(query.const_value.numpy() * 16, name=query.name)  # attention that picks tokens out
    ConvertFp16()(model)
    RoundFp16()(model)
    assert not np.isfinite(every_value(model, inputs)["matmul_2"]).all() or not all(
        np.isfinite(values).all() for name, values in every_value(model, inputs).items() if name != "scores"
    )


def test_graphs_that_decode_memory_first_are_left_alone(exported):
    for path, _ in graphs_of(exported(VARIANT)):
        if path.stem != "live_stage_a":
            assert not RescaleCodes()(load_graph(path)).modified
