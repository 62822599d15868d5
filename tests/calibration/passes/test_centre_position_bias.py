"""A constant in the position bias is taken out wherever a table lives, and left where only some keys have it."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from glimmer_export.calibration.fp16 import check_fp16
from glimmer_export.calibration.passes.centre_position_bias import CentrePositionBias, find_bias_tables
from glimmer_export.calibration.passes.convert_fp16 import ConvertFp16
from glimmer_export.calibration.passes.round_fp16 import RoundFp16
from glimmer_export.exporter.tolerances import TOLERANCES, max_abs_error
from tests.calibration.fp16_graphs import graphs_of, run, tracked
from tests.calibration.passes.test_exact_rewrites import by_channel, folded_graphs
from tests.exported import REWRITTEN_VARIANTS, load_graph

SHIFT = np.float32([256, -4096, 1000, 4096])
LIVING = {"memory_encoder", "question_encoder", "live_stage_a", "live_stage_b", "decoder_step", "decoder_prefill"}


def shift_tables(model: ir.Model, shift: np.ndarray) -> int:
    """Rounded to what FP32 holds beside the shift, so that both graphs are of one function."""
    tables = find_bias_tables(model.graph)
    for table in tables:
        content = np.round(table.const_value.numpy() * 1024) / 1024
        table.const_value = ir.tensor((content + shift[: content.shape[1]]).astype(np.float32), name=table.name)
    return len(tables)


@pytest.mark.parametrize("variant", REWRITTEN_VARIANTS)
def test_no_constant_is_left_in_any_table(exported, variant):
    """With tables shifted by thousands, the graph computes what the unshifted one does."""
    found = set()
    for graph, model, inputs in folded_graphs(exported(variant)):
        shift_tables(model, 0 * SHIFT)
        expected = run(model, inputs)
        if not shift_tables(model, SHIFT):
            continue
        found.add(graph)
        ranges, centre = by_channel(model, inputs), None
        centre = CentrePositionBias(ranges)
        assert centre(model).modified
        assert centre.left == []
        for table in find_bias_tables(model.graph):
            np.testing.assert_allclose(table.const_value.numpy().mean(axis=0), 0, atol=1e-3)
        for name, values in run(model, inputs).items():
            if values.dtype.kind == "f":
                assert max_abs_error(values, expected[name]) <= TOLERANCES["fp32"].limit(expected[name]), name
    assert found >= LIVING & {path.stem for path, _ in graphs_of(exported(variant))} - {"live_stage_b"}


def test_fp16_keeps_what_a_shift_of_thousands_takes(glimmer):
    """The memory encoder rounded as FP16 rounds: its error beside FP32's is that of the plain checkpoint."""
    path, inputs = next(graphs_of(glimmer))
    errors = []
    for shift, centred in ((0 * SHIFT, False), (SHIFT, True), (SHIFT, False)):
        model = load_graph(path)
        shift_tables(model, shift)
        ranges = tracked(model, [inputs])
        expected = run(model, inputs)["hidden_states"]
        if centred:
            CentrePositionBias(ranges)(model)
        ConvertFp16(ranges)(model)
        assert check_fp16(model.graph, ranges) == [] or not centred
        RoundFp16()(model)
        errors.append(float(np.abs(run(model, inputs)["hidden_states"] - expected).max()))
    plain, ours, shifted = errors
    assert ours <= 2 * plain
    assert shifted >= 20 * plain


@pytest.mark.parametrize(("largest", "named"), [(20.0, False), (21.0, True)])
def test_the_preflight_names_a_table_that_fp16_rounds(glimmer, largest, named):
    """20.48 is what FP16 rounds by 0.01."""
    path, inputs = next(graphs_of(glimmer))
    model = load_graph(path)
    (table,) = find_bias_tables(model.graph)
    content = np.zeros(table.shape.numpy(), np.float32)
    content[3, 1] = largest
    table.const_value = ir.tensor(content, name=table.name)
    ranges = tracked(model, [inputs])
    ConvertFp16(ranges)(model)
    notes = check_fp16(model.graph, ranges)
    assert len(notes) == named
    assert all("relative_attention_bias" in note and "reaches 21" in note and "by 0.01" in note for note in notes)


SOME_KEYS = {
    "filled": "bias = Where (keep, moved, zero)",
    "joined": "bias = Concat <axis=-1> (moved, rest)",
    "padded": "bias = Pad (moved, pads)",
    "scaled": "bias = Mul (moved, factor)",
    "seen": "bias = Identity (moved) \n seen = Identity (moved)",
}
WHOLE = {
    "masked": "bias = Where (keep, moved, lowest)",
    "joined with itself": "bias = Concat <axis=-1> (moved, moved)",
    "added to": "bias = Add (moved, rest)",
}


def attention(way: str) -> ir.Model:
    """Scores of 2 heads over 3 keys, the table's three rows their bias, which reaches the softmax by `way`."""
    keys = 6 if "axis=-1" in way else 3
    seen = ", float[2, 1, 3] seen" if "seen" in way else ""
    text = f"""
        <ir_version: 10, opset_import: ["" : 20]>
        attend (float[2, 1, {keys}] scores, int32[1, 3] index, bool[1, 1, 3] keep, float[2, 1, 3] rest)
            => (float[2, 1, {keys}] weights{seen})
        <float[3, 2] table = {{1, 20, 2, 30, 3, 70}}, float zero = {{0}}, float lowest = {{0}}, float factor = {{2}},
         int64[6] pads = {{0, 0, 0, 0, 0, 0}}>
        {{
            found = Gather (table, index)
            moved = Transpose <perm=[2, 0, 1]> (found)
            {way}
            sum = Add (scores, bias)
            weights = Softmax <axis=-1> (sum)
        }}
    """
    model = ir.from_proto(onnx.parser.parse_model(text))
    model.graph.initializers["lowest"].const_value = ir.tensor(np.float32(np.finfo(np.float32).min), name="lowest")
    return model


@pytest.mark.parametrize("way", [*SOME_KEYS, *WHOLE])
def test_a_constant_that_the_softmax_would_see_stays(way):
    model = attention((SOME_KEYS | WHOLE)[way])
    inputs = {
        "scores": np.random.default_rng(0).normal(size=(2, 1, 6 if "joined" in way else 3)).astype(np.float32),
        "index": np.int32([[0, 2, 1]]), "keep": np.array([[[True, False, True]]]),
        "rest": np.float32(np.arange(6)).reshape(2, 1, 3) / 4,
    }
    expected, centre = run(model, inputs)["weights"], CentrePositionBias()
    assert centre(model).modified == (way in WHOLE)
    assert centre.left == ([] if way in WHOLE else ["table"])
    np.testing.assert_allclose(run(model, inputs)["weights"], expected, rtol=1e-5)
