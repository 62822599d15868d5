"""The rounding of FP16 graphs against the ONNX reference evaluator, which computes in FP16 itself."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from glimmer_export.calibration.fp16_limits import FP16_MAX
from glimmer_export.calibration.passes.convert_fp16 import ConvertFp16
from glimmer_export.calibration.passes.fp16_plan import ROLES
from glimmer_export.calibration.passes.operators import PRODUCTS
from glimmer_export.calibration.passes.round_fp16 import RoundFp16
from glimmer_export.exporter.tolerances import TOLERANCES
from tests.calibration.fp16_graphs import graphs_of, inflated, run
from tests.exported import load_graph

FUNCTIONS = {"Gelu", "Softmax"}


def reference_values(proto, inputs):
    """Every value of a graph, by the reference evaluator."""
    names = [name for node in proto.graph.node for name in node.output]
    shown = onnx.ModelProto()
    shown.CopyFrom(proto)
    del shown.graph.output[:]
    shown.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    with np.errstate(all="ignore"):
        values = dict(zip(names, ReferenceEvaluator(shown).run(None, inputs), strict=True))
    weights = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    return {**inputs, **weights, **values}


def alone(proto, node, values):
    """One node as a model, with what the reference fed it and gave for it."""
    fed = {name: values[name] for name in node.input if name}
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in fed.items()
    ]
    expected = values[node.output[0]]
    output = helper.make_tensor_value_info(node.output[0], onnx.TensorProto.FLOAT16, expected.shape)
    graph = helper.make_graph([node], "alone", inputs, [output])
    model = helper.make_model(graph, opset_imports=proto.opset_import, ir_version=proto.ir_version)
    return ir.from_proto(model), fed, expected


def rounded(model):
    RoundFp16()(model)
    return model


@pytest.mark.parametrize("keep_fp32", [ROLES, frozenset()], ids=["ours", "naive"])
@pytest.mark.parametrize("form", ["exact algebra", "paper's form"])
@pytest.mark.parametrize("exponent", [0, 10])
def test_each_operator_gives_the_references_numbers(demo_bundles, form, keep_fp32, exponent):
    seen = set()
    for path, inputs in graphs_of(demo_bundles[form]):
        model = inflated(path, exponent)
        ConvertFp16(keep_fp32=keep_fp32)(model)
        proto = ir.to_proto(model)
        values = reference_values(proto, inputs)
        for node in proto.graph.node:
            if values[node.output[0]].dtype != np.float16:
                continue
            single, fed, expected = alone(proto, node, values)
            found = run(rounded(single), fed)[node.output[0]]
            seen.add(node.op_type)
            assert found.dtype == np.float16
            finite = np.isfinite(expected)
            if node.op_type in PRODUCTS | FUNCTIONS:
                kind = "fp16_product" if node.op_type in PRODUCTS else "fp16_function"
                limit = TOLERANCES[kind].limit(expected.astype(np.float64))
                both = finite & np.isfinite(found)
                assert np.abs(found[both].astype(np.float64) - expected[both]).max(initial=0) <= limit, node.name
                assert (np.isfinite(found) == finite).mean() > 0.999, node.name
            else:
                np.testing.assert_array_equal(found, expected, err_msg=node.name)
    assert seen >= {"Add", "Cast", "Gather", "Gelu", "MatMul", "Mul", "Softmax", "Where"}
    assert keep_fp32 or seen >= {"Div", "Pow", "ReduceMean", "Sqrt"}


def test_infinities_that_onnx_runtime_hides_are_all_seen(demo_bundles):
    path, inputs = next(graphs_of(demo_bundles["exact algebra"]))
    model = inflated(path, 10)
    ConvertFp16(keep_fp32=frozenset())(model)
    squares = [node.outputs[0].name for node in model.graph if node.op_type == "Pow"][:1]
    values = reference_values(ir.to_proto(model), inputs)
    model.graph.outputs[:] = [value for node in model.graph for value in node.outputs if value.name in squares]
    expected = {name: int(np.isinf(values[name]).sum()) for name in squares}
    # Where the squares are not outputs, ONNX Runtime keeps them in FP32 and nothing shows.
    hidden = inflated(path, 10)
    ConvertFp16(keep_fp32=frozenset())(hidden)
    plain = run(hidden, inputs, optimised=True)["hidden_states"]
    found = run(rounded(model), inputs)
    assert np.isfinite(plain).all()
    assert {name: int(np.isinf(values).sum()) for name, values in found.items()} == expected
    assert sum(expected.values()) > 0


def test_a_cast_pair_is_not_taken_for_nothing():
    value = helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT16, [4])
    output = helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4])
    nodes = [
        helper.make_node("Mul", ["x", "x"], ["square"], "square"),
        helper.make_node("Sqrt", ["square"], ["root"], "root"),
        helper.make_node("Cast", ["root"], ["y"], "single", to=onnx.TensorProto.FLOAT),
    ]
    graph = helper.make_graph(nodes, "g", [value], [output])
    model = ir.from_proto(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10))
    inputs = {"x": np.array([1.0, 3.0, 300.0, FP16_MAX], np.float16)}
    RoundFp16()(model)
    np.testing.assert_array_equal(run(model, inputs)["y"], np.float32([1, 3, np.inf, np.inf]))


def test_a_graph_without_fp16_is_left_as_it_is(glimmer):
    path, inputs = next(graphs_of(glimmer))
    model = load_graph(path)
    RoundFp16()(model)
    expected = run(load_graph(path), inputs)["hidden_states"]
    np.testing.assert_array_equal(run(model, inputs)["hidden_states"], expected)
