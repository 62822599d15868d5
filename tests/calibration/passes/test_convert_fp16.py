"""FP16 graphs: what is in half precision, what is not, and that the numbers hold."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from glimmer_export.calibration.fp16_limits import FP32_LOWEST, MASKED
from glimmer_export.calibration.passes.convert_fp16 import ConvertFp16
from glimmer_export.calibration.passes.operators import PRODUCTS, constant, is_float
from glimmer_export.calibration.passes.rescale_codes import RescaleCodes
from glimmer_export.calibration.passes.residual_stream import find_norms
from glimmer_export.calibration.passes.round_fp16 import RoundFp16
from glimmer_export.exporter.graphs.check import check_operators
from glimmer_export.exporter.tolerances import TOLERANCES, max_abs_error
from glimmer_export.runtime.contract import boundary_of
from tests.calibration.fp16_graphs import dtypes, error_scales, every_value, graphs_of, node_types, run, tracked
from tests.exported import REWRITTEN_VARIANTS, load_graph

HALF, SINGLE = ir.DataType.FLOAT16, ir.DataType.FLOAT


def converted(path, inputs):
    model = load_graph(path)
    ranges = tracked(model, [inputs])
    RescaleCodes(ranges)(model)
    convert = ConvertFp16(ranges)
    convert(model)
    return model, convert


@pytest.mark.parametrize("variant", REWRITTEN_VARIANTS)
def test_graphs_are_valid_and_keep_their_inputs_and_outputs(exported, variant, tmp_path):
    for path, inputs in graphs_of(exported(variant)):
        before = load_graph(path)
        after, _ = converted(path, inputs)
        for values, expected in (
            (after.graph.inputs, before.graph.inputs), (after.graph.outputs, before.graph.outputs)
        ):
            assert dtypes(values) == dtypes(expected), path.stem
            assert [str(value.shape) for value in values] == [str(value.shape) for value in expected]
        ir.save(after, tmp_path / path.name)
        onnx.checker.check_model(str(tmp_path / path.name), full_check=True)
        check_operators(tmp_path / path.name)
        names = [node.name for node in after.graph]
        assert all(names)
        assert len(set(names)) == len(names)


@pytest.mark.parametrize("variant", REWRITTEN_VARIANTS)
def test_products_are_half_and_norms_and_stream_are_single(exported, variant):
    for path, inputs in graphs_of(exported(variant)):
        model, convert = converted(path, inputs)
        for node in model.graph:
            floats = {value.dtype for value in (*node.inputs, *node.outputs) if is_float(value)}
            if node.op_type in PRODUCTS:
                assert (floats == {HALF}) == (not any(kept.startswith(f"{node.name}:") for kept in convert.kept_fp32))
            elif node.op_type in {"Gelu", "Relu"}:
                assert floats == {HALF}, node.name
            if node.op_type != "Cast":
                assert len(floats) <= 1, f"{path.stem}: {node.name} mixes dtypes"
        norms = find_norms(model.graph)
        assert len(norms) == len(find_norms(load_graph(path).graph))
        for norm in norms:
            assert norm.stream.dtype == SINGLE
            assert {value.dtype for node in norm.nodes for value in node.outputs} == {SINGLE}


@pytest.mark.parametrize("variant", REWRITTEN_VARIANTS)
def test_a_value_is_cast_once_and_never_back(exported, variant):
    for path, inputs in graphs_of(exported(variant)):
        model, _ = converted(path, inputs)
        casts = [node for node in model.graph if node.op_type == "Cast" and is_float(node.outputs[0])]
        assert len({(node.inputs[0], node.outputs[0].dtype) for node in casts}) == len(casts)
        for node in casts:
            producer = node.inputs[0].producer()
            assert producer is None or producer.op_type != "Cast"
            assert node.inputs[0].dtype != node.outputs[0].dtype


@pytest.mark.parametrize("variant", REWRITTEN_VARIANTS)
def test_matrices_are_stored_in_half(exported, variant):
    for path, inputs in graphs_of(exported(variant)):
        model, convert = converted(path, inputs)
        assert not convert.kept_fp32
        for name, value in model.graph.initializers.items():
            if value.const_value.numpy().ndim > 1 and is_float(value):
                assert value.dtype == HALF, name
        assert set(model.graph.initializers) - {"last_axis"} - set(load_graph(path).graph.initializers) <= {
            name for name in model.graph.initializers if name.endswith((".row", ".fp16")) or name.startswith("factor.")
        }


@pytest.mark.parametrize("variant", REWRITTEN_VARIANTS)
def test_results_are_within_the_tolerance_absent_passages_included(exported, variant):
    for path, inputs in graphs_of(exported(variant)):
        expected = run(load_graph(path), inputs)
        model, _ = converted(path, inputs)
        RoundFp16()(model)
        found = run(model, inputs)
        for name, scale in error_scales(load_graph(path), inputs).items():
            assert not np.isnan(found[name]).any(), f"{path.stem}: {name}"
            error = max_abs_error(found[name], expected[name])
            assert error <= TOLERANCES["fp16"].limit(scale), f"{path.stem}: {name}"


@pytest.mark.parametrize("variant", REWRITTEN_VARIANTS)
def test_what_crosses_in_half_is_read_and_written_without_a_cast(exported, variant):
    for path, inputs in graphs_of(exported(variant)):
        model = load_graph(path)
        before = [value.name for value in (*model.graph.inputs, *model.graph.outputs)]
        names = {name for name in before if boundary_of(name)}
        expected, ranges = run(model, inputs), tracked(model, [inputs])
        RescaleCodes(ranges)(model)
        convert = ConvertFp16(ranges, fp16_io=names)
        convert(model)
        assert not convert.kept_fp32
        found = [*model.graph.inputs, *model.graph.outputs]
        assert [value.name for value in found] == before
        for value in found:
            assert (value.dtype == HALF) == (value.name in names or value.name == "memory"), value.name
            at = [value.producer()] if value.is_graph_output() else value.consumers()
            casts = [node.name for node in at if node.op_type == "Cast"]
            assert value.name not in names or not casts, f"{path.stem}: {value.name}"
        RoundFp16()(model)
        halves = {name: array.astype(np.float16) if name in names else array for name, array in inputs.items()}
        outputs = run(model, halves)
        for name, scale in error_scales(load_graph(path), inputs).items():
            error = max_abs_error(outputs[name].astype(np.float32), expected[name])
            assert error <= TOLERANCES["fp16"].limit(scale), f"{path.stem}: {name}"


@pytest.mark.parametrize("masked", ["memory_mask", "question_mask", "encoder_attention_mask", "attention_mask"])
def test_a_row_with_nothing_to_attend_gives_no_nan(exported, masked):
    for variant in ("glimmer", "glimmer, exact algebra", "lumen"):
        for path, inputs in graphs_of(exported(variant)):
            if masked in inputs:
                model, _ = converted(path, inputs)
                nothing = {name: np.zeros_like(inputs[name]) for name in inputs if name.endswith("_mask")}
                RoundFp16()(model)
                for name, values in every_value(model, {**inputs, **nothing}).items():
                    assert not np.isnan(values).any(), f"{path.stem}: {name}"


def test_masks_in_half_hold_a_finite_number_that_leaks_nothing(exported):
    for path, inputs in graphs_of(exported("glimmer")):
        model, _ = converted(path, inputs)
        constants = [value.const_value.numpy() for value in model.graph.initializers.values()]
        scalars = {float(array) for array in constants if array.ndim == 0 and array.dtype.kind == "f"}
        assert FP32_LOWEST not in scalars
        if "Softmax" in node_types(model):
            assert MASKED in scalars


def test_without_anything_kept_every_float_is_half(exported):
    for path, _ in graphs_of(exported("glimmer")):
        model = load_graph(path)
        ConvertFp16(keep_fp32=frozenset())(model)
        at_the_boundary = {*model.graph.inputs, *model.graph.outputs}
        for node in model.graph:
            for value in node.outputs:
                if is_float(value) and value not in at_the_boundary and node.op_type != "Cast":
                    assert value.dtype == HALF, value.name


def test_a_product_that_would_overflow_stays_in_fp32_and_is_reported(glimmer):
    path = glimmer.graph("memory_encoder")
    _, inputs = next(iter(graphs_of(glimmer)))
    model = load_graph(path)
    weight = model.graph.initializers["memory_encoder.block.0.layer.1.DenseReluDense.wi_1.weight"]
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(2.0**17), name=weight.name)
    expected = run(model, inputs)
    convert = ConvertFp16(tracked(model, [inputs]))
    convert(model)
    kept = "memory_encoder.block.0.layer.1.DenseReluDense."
    assert [line.partition("/")[0] for line in convert.kept_fp32] == [f"{kept}wi_1", f"{kept}wo"]
    single = {node.name for node in model.graph if node.op_type == "MatMul" and node.outputs[0].dtype == SINGLE}
    assert single == {f"{kept}wi_1/MatMul", f"{kept}wo/MatMul"}
    RoundFp16()(model)
    found = run(model, inputs)["hidden_states"]
    assert max_abs_error(found, expected["hidden_states"]) <= TOLERANCES["fp16"].limit(expected["hidden_states"])


def test_attention_scores_beyond_the_masks_bound_are_added_in_fp32(glimmer):
    path = glimmer.graph("memory_encoder")
    _, inputs = next(iter(graphs_of(glimmer)))
    model = load_graph(path)
    weight = model.graph.initializers["memory_encoder.block.0.layer.0.SelfAttention.q.weight"]
    weight.const_value = ir.tensor(weight.const_value.numpy() * np.float32(2.0**11), name=weight.name)
    convert = ConvertFp16(tracked(model, [inputs]))
    convert(model)
    assert any("attention scores reach" in line for line in convert.kept_fp32)
    softmax = next(node for node in model.graph if node.op_type == "Softmax")
    assert softmax.outputs[0].dtype == SINGLE
    scalars = {
        float(value.const_value.numpy()) for value in model.graph.initializers.values() if not value.shape.dims
    }
    assert FP32_LOWEST in scalars


def quantised(model: ir.Model) -> ir.Model:
    """Q/DQ at both inputs of every product with a constant matrix, as TensorRT wants them, in FP32."""
    graph = model.graph
    done = {}

    def initializer(name, array):
        tensor = ir.tensor(array, name=name)
        value = ir.Value(name=name, shape=tensor.shape, type=ir.TensorType(tensor.dtype), const_value=tensor)
        graph.register_initializer(value)
        return value

    zero = initializer("zero", np.zeros((), np.int8))
    for node in list(graph):
        weight = constant(node.inputs[1]) if node.op_type == "MatMul" else None
        if weight is None or len(weight.shape) != 2:
            continue
        states, weight = node.inputs
        if states not in done:
            scale = initializer(f"{states.name}.scale", np.float32(2.0**-4))
            q = ir.Node("", "QuantizeLinear", [states, scale, zero], name=f"{states.name}/Q")
            dq = ir.Node("", "DequantizeLinear", [q.outputs[0], scale, zero], name=f"{states.name}/DQ")
            q.outputs[0].name, dq.outputs[0].name = f"{states.name}.q", f"{states.name}.dq"
            graph.insert_before(node, [q, dq])
            done[states] = dq.outputs[0]
        array = weight.const_value.numpy()
        scales = (np.abs(array).max(0) / 127).astype(np.float16).astype(np.float32)
        codes = initializer(f"{weight.name}.codes", np.clip(np.rint(array / scales), -127, 127).astype(np.int8))
        zeros = initializer(f"{weight.name}.zeros", np.zeros(len(scales), np.int8))
        by_channel = initializer(f"{weight.name}.scales", scales)
        dq = ir.Node("", "DequantizeLinear", [codes, by_channel, zeros], [ir.AttrInt64("axis", 1)],
                     name=f"{weight.name}/DQ")  # fmt: skip
        dq.outputs[0].name = f"{weight.name}.dq"
        graph.insert_before(node, dq)
        node.replace_input_with(0, done[states])
        node.replace_input_with(1, dq.outputs[0])
    return model


@pytest.mark.parametrize("variant", ["glimmer, every option", "glimmer, exact algebra", "lumen"])
def test_quantised_graphs_take_scales_of_what_stands_at_them(exported, variant, tmp_path):
    for path, inputs in graphs_of(exported(variant)):
        ranges = tracked(load_graph(path), [inputs])
        model = load_graph(path)
        RescaleCodes(ranges)(model)
        model = quantised(model)
        expected, scales = run(model, inputs), error_scales(model, inputs)
        ConvertFp16(ranges)(model)
        ir.save(model, tmp_path / path.name)
        onnx.checker.check_model(str(tmp_path / path.name), full_check=True)
        for node in model.graph:
            if node.op_type == "QuantizeLinear":
                assert node.inputs[1].dtype == node.inputs[0].dtype
            elif node.op_type == "DequantizeLinear":
                of_product = all(reader.op_type in PRODUCTS for reader in node.outputs[0].consumers())
                assert (node.inputs[1].dtype, node.outputs[0].dtype) == ((HALF, HALF) if of_product else (SINGLE,) * 2)
        RoundFp16()(model)
        found = run(model, inputs)
        for name, scale in scales.items():
            finite = np.isfinite(expected[name])
            assert np.isfinite(found[name][finite]).all()
            # A code may tip to its neighbour, which these coarse scales make a large step; on the whole they agree.
            error = np.sqrt(np.mean((found[name][finite] - expected[name][finite]) ** 2))
            assert error <= 0.15 * np.sqrt(np.mean(scale[np.isfinite(scale)] ** 2)), f"{path.stem}: {name}"


def test_a_scale_that_is_no_fp16_number_is_refused(glimmer):
    path = glimmer.graph("memory_encoder")
    model = quantised(load_graph(path))
    name = next(name for name in model.graph.initializers if name.endswith("wo.weight.scales"))
    value = model.graph.initializers[name]
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(1.0001), name=name)
    with pytest.raises(ValueError, match=r"wo.weight.scales is no FP16 number"):
        ConvertFp16()(model)
