"""The residual stream scaled by a power of two changes no result, and cures what overflows."""

from __future__ import annotations

import numpy as np
import pytest

from glimmer_export.calibration.fp16 import check_fp16
from glimmer_export.calibration.fp16_limits import FP16_MAX
from glimmer_export.calibration.passes.convert_fp16 import ConvertFp16
from glimmer_export.calibration.passes.fp16_range import amax_of
from glimmer_export.calibration.passes.rescale_residual import HEADROOM, RescaleResidual, residual_scale
from glimmer_export.calibration.passes.residual_stream import residual_stream
from glimmer_export.calibration.passes.round_fp16 import RoundFp16
from glimmer_export.exporter.tolerances import TOLERANCES, max_abs_error
from tests.calibration.fp16_graphs import dtypes, every_value, graphs_of, inflated, run, tracked
from tests.exported import REWRITTEN_VARIANTS, load_graph

SCALE = 2.0**-10


@pytest.mark.parametrize("variant", REWRITTEN_VARIANTS)
def test_a_rescaled_graph_gives_the_same_bits(exported, variant):
    for path, inputs in graphs_of(exported(variant)):
        expected = run(load_graph(path), inputs)
        model = load_graph(path)
        RescaleResidual(SCALE)(model)
        found = run(model, inputs)
        assert list(found) == list(expected)
        for name, values in expected.items():
            assert np.array_equal(found[name], values), f"{path.stem}: {name}"


@pytest.mark.parametrize("variant", REWRITTEN_VARIANTS)
def test_ranges_follow(exported, variant):
    for path, inputs in graphs_of(exported(variant)):
        model = load_graph(path)
        ranges = tracked(model, [inputs])
        RescaleResidual(SCALE, ranges)(model)
        for name, values in every_value(model, inputs).items():
            finite = values[np.isfinite(values)]
            if name in ranges and finite.size:
                assert ranges.amax(name) == pytest.approx(np.abs(finite).max(), rel=1e-3), f"{path.stem}: {name}"


@pytest.mark.parametrize("variant", REWRITTEN_VARIANTS)
def test_everything_on_the_stream_is_scaled(exported, variant):
    for path, inputs in graphs_of(exported(variant)):
        before = every_value(load_graph(path), inputs)
        model = load_graph(path)
        names = {value.name for value in residual_stream(model.graph).values} & set(before)
        entered = {value.name for value in model.graph.inputs} | {"memory_states"}
        left = {value.name for value in model.graph.outputs}
        RescaleResidual(SCALE)(model)
        after = every_value(model, inputs)
        for name in names - entered - left:
            assert np.array_equal(after[name], before[name] * np.float32(SCALE)), f"{path.stem}: {name}"
        assert dtypes(model.graph.outputs) == dtypes(load_graph(path).graph.outputs)


def test_tied_embeddings_are_untied(exported):
    path = exported("lumen").graph("decoder_step")
    model = load_graph(path)
    tied = next(node for node in model.graph if node.op_type == "Gemm").inputs[1]
    table = tied.const_value.numpy()
    assert {node.op_type for node in tied.consumers()} == {"Gather", "Gemm"}
    RescaleResidual(SCALE)(model)
    assert np.array_equal(tied.const_value.numpy(), table)
    (copy,) = (value for name, value in model.graph.initializers.items() if name.startswith(f"{tied.name}.x"))
    assert np.array_equal(copy.const_value.numpy(), table * np.float32(SCALE))


@pytest.mark.parametrize("scale", [0.0, 2.0, 0.3, -0.5])
def test_another_scale_is_refused(scale):
    with pytest.raises(ValueError, match="no power of two"):
        RescaleResidual(scale)


@pytest.mark.parametrize("exponent", [0, 6, 10, 12, 16])
def test_the_scale_chosen_gives_headroom_and_no_more(glimmer, exponent):
    path, inputs = next(graphs_of(glimmer))
    model = inflated(path, exponent)
    ranges = tracked(model, [inputs])
    written = [str(value.name) for value in residual_stream(model.graph).written]
    worst = max(ranges.amax(name) for name in written)
    scale = residual_scale(model.graph, ranges)
    assert worst * scale <= FP16_MAX / HEADROOM
    assert scale == 1 or worst * scale * 2 > FP16_MAX / HEADROOM
    assert (scale == 1) == (worst <= FP16_MAX / HEADROOM)


@pytest.mark.parametrize("exponent", [10, 12])
@pytest.mark.parametrize("name", ["memory_encoder", "decoder_step"])
def test_an_inflated_demo_overflows_naively_and_not_as_we_convert_it(demo_bundles, name, exponent):
    path, inputs = next(each for each in graphs_of(demo_bundles["exact algebra"]) if each[0].stem == name)
    model = inflated(path, exponent)
    expected = run(model, inputs)
    naive = inflated(path, exponent)
    ConvertFp16(keep_fp32=frozenset())(naive)
    RoundFp16()(naive)
    assert not all(np.isfinite(values).all() for values in every_value(naive, inputs).values())
    ranges = tracked(model, [inputs])
    RescaleResidual(residual_scale(model.graph, ranges), ranges)(model)
    convert = ConvertFp16(ranges)
    convert(model)
    assert not convert.kept_fp32
    check_fp16(model.graph, ranges)
    RoundFp16()(model)
    for values in every_value(model, inputs).values():
        assert np.isfinite(values).all()
    for output, values in run(model, inputs).items():
        if values.dtype.kind == "f":
            assert max_abs_error(values, expected[output]) <= TOLERANCES["fp16"].limit(expected[output]), output


def test_what_stands_on_the_stream_is_found_under_other_names_too(glimmer):
    path, inputs = next(graphs_of(glimmer))
    model = load_graph(path)
    ranges = tracked(model, [inputs])
    RescaleResidual(SCALE, ranges)(model)
    (inner,) = (value for node in model.graph for value in node.outputs if value.name == "hidden_states.scaled")
    found = np.abs(every_value(model, inputs)["hidden_states.scaled"]).max()
    assert found <= amax_of(inner, ranges) <= 4 * found
