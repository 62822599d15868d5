"""Counting graphs node by node: exported ones against our formulas, and single nodes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from glimmer_export.exporter.cost import CostRequest, cost_report
from glimmer_export.exporter.cost.count import count_graph, count_model
from glimmer_export.exporter.cost.model import run_dims
from glimmer_export.exporter.cost.ours import graph_macs
from glimmer_export.exporter.cost.report import resolve
from glimmer_export.runtime.contract import BundleError
from tests.exported import VARIANTS


@pytest.mark.parametrize("variant", VARIANTS)
def test_exported_graphs_agree_with_our_formulas(exported, variant):
    for request in (
        CostRequest(bundle=exported(variant).bundle, answer_tokens=6),
        CostRequest(
            bundle=exported(variant).bundle, k=4, m=3, question_tokens=7, passage_tokens=19, answer_tokens=3
        ),
    ):
        report = cost_report(request)
        for name, stage in report.ours.items():
            assert report.counted[name].macs_per_run == pytest.approx(stage.macs_per_run, rel=0.02), name
        assert report.counted_macs == pytest.approx(report.our_macs, rel=0.02)


@pytest.mark.parametrize("variant", ["glimmer", "glimmer, exact algebra, two layers"])
def test_at_the_papers_lengths(exported, variant):
    request = CostRequest(
        bundle=exported(variant).bundle, k=25, m=5, question_tokens=48, passage_tokens=304, answer_tokens=16
    )
    report = cost_report(request)
    assert report.counted_macs == pytest.approx(report.our_macs, rel=0.02)


@pytest.mark.parametrize("forms", ["exact algebra", "paper's form"])
def test_the_demo_bundle(demo_bundles, forms):
    report = cost_report(CostRequest(bundle=demo_bundles[forms]))
    assert report.counted_macs == pytest.approx(report.our_macs, rel=0.02)


def test_what_is_precomputed_is_counted_alike(exported):
    source = exported("glimmer")
    resolved = resolve(CostRequest(bundle=source.bundle))
    dims = run_dims(resolved.model, resolved.workload, "memory_encoder") | {"tokens": 20}
    assert count_graph(source.graph("memory_encoder"), dims) == graph_macs(resolved.model, "memory_encoder", dims)


def graph_of(nodes, inputs, initializers=()):
    return helper.make_model(
        helper.make_graph(
            nodes, "test",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in inputs.items()],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in dict(initializers).items()],
        ),
        opset_imports=[helper.make_opsetid("", 20)],
    )


def count(*arguments, **dims: int) -> int:
    return count_model(graph_of(*arguments), dims, subject="graph test")


def test_a_product_behind_a_reshape_by_its_own_shape():
    nodes = [
        helper.make_node("Shape", ["x"], ["shape"], start=0, end=1),
        helper.make_node("Concat", ["shape", "rest"], ["target"], axis=0),
        helper.make_node("Reshape", ["x", "target"], ["rows"]),
        helper.make_node("MatMul", ["rows", "w"], ["y"]),
    ]
    initializers = {"rest": np.array([2, 4], np.int64), "w": np.zeros((4, 5), np.float32)}
    assert count(nodes, {"x": ["batch", 8]}, initializers, batch=3) == 3 * 2 * 4 * 5


@pytest.mark.parametrize(
    ("node", "inputs", "expected"),
    [
        (helper.make_node("MatMul", ["a", "b"], ["y"]), {"a": [2, 1, 3, 4], "b": [5, 4, 6]}, 2 * 5 * 3 * 4 * 6),
        (helper.make_node("MatMul", ["a", "b"], ["y"]), {"a": [4], "b": [4]}, 4),
        (helper.make_node("Gemm", ["a", "b"], ["y"]), {"a": [3, 4], "b": [4, 5]}, 60),
        (helper.make_node("Gemm", ["a", "b"], ["y"], transA=1, transB=1), {"a": [4, 3], "b": [5, 4]}, 60),
        (helper.make_node("Einsum", ["a", "b"], ["y"], equation="bij,bjk->bik"), {"a": [2, 3, 4], "b": [2, 4, 5]}, 120),
        (helper.make_node("Add", ["a", "b"], ["y"]), {"a": [3, 4], "b": [3, 4]}, 0),
    ],
)
def test_single_nodes(node, inputs, expected):
    assert count([node], inputs) == expected


def with_body() -> onnx.NodeProto:
    body = helper.make_graph(
        [helper.make_node("Identity", ["a"], ["z"])], "body", [], [helper.make_tensor_value_info("z", 1, None)]
    )
    return helper.make_node("If", ["a"], ["y"], name="choice", then_branch=body, else_branch=body)


@pytest.mark.parametrize(
    ("node", "message"),
    [
        (with_body(), "node choice: expected an operator that can be counted, found If, which has a body"),
        (helper.make_node("Conv", ["a", "b"], ["y"], name="filter"), "node filter: .* found Conv"),
        (helper.make_node("Gelu", ["a"], ["y"], domain="com.microsoft"), r"found com.microsoft.Gelu"),
        (helper.make_node("MatMul", ["a", "a"], ["y"], name="odd"), "node odd: expected inputs whose shapes fit"),
        (helper.make_node("Einsum", ["a", "b"], ["y"], equation="...i,...i"), "without an ellipsis"),
    ],
)
def test_what_cannot_be_counted_is_refused_by_name(node, message):
    with pytest.raises(BundleError, match=message):
        count([node], {"a": [2, 3], "b": [2, 3]})


def test_a_dimension_that_no_one_gave():
    with pytest.raises(BundleError, match="input a: expected the dimensions batch, found somewhere"):
        count([helper.make_node("Identity", ["a"], ["y"])], {"a": ["somewhere"]}, batch=1)


def test_a_shape_that_depends_on_data():
    nodes = [helper.make_node("NonZero", ["a"], ["found"]), helper.make_node("Cast", ["found"], ["f"], to=1)]
    nodes.append(helper.make_node("MatMul", ["a", "f"], ["y"], name="odd"))
    with pytest.raises(BundleError, match="expected a shape of f, found none"):
        count(nodes, {"a": [2, 2]})


def test_a_file_that_is_no_graph(tmp_path):
    (tmp_path / "graph.onnx").write_bytes(b"\xff\xff not protobuf")
    with pytest.raises(BundleError, match="expected an ONNX model"):
        count_graph(tmp_path / "graph.onnx", {})


@pytest.mark.parametrize(("node", "found"), [
    (helper.make_node("Relu", ["unknown"], ["y"]), "unknown, which nothing before it gives"),
    (helper.make_node("NoSuchThing", ["x"], ["y"]), "NoSuchThing, which ONNX does not have"),
])
def test_a_damaged_graph_is_refused_by_name(node, found):
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    with pytest.raises(BundleError, match=found):
        count_model(model, {}, subject="g")


HUGE = numpy_helper.from_array(np.array([1 << 40], np.int64), "n")
ONE = numpy_helper.from_array(np.array([1.0], np.float32), "one")
MANY = [numpy_helper.from_array(np.ones(300, np.float32), f"v{place}") for place in range(5)]


def with_tensors(nodes, tensors):
    model = graph_of(nodes, {})
    model.graph.initializer.extend(tensors)
    return model


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("ConstantOfShape", ["n"], ["y"]),
        helper.make_node("Expand", ["one", "n"], ["y"]),
        helper.make_node("Tile", ["one", "n"], ["y"]),
        helper.make_node("RandomNormal", [], ["y"], shape=[1 << 40]),
        helper.make_node("Einsum", [tensor.name for tensor in MANY], ["y"], equation="a,b,c,d,e->abcde"),
    ],
    ids=lambda node: node.op_type,
)
def test_nothing_is_made_of_a_shape_before_its_size_is_known(node):
    """A terabyte or more: making it would end the process, or the test."""
    assert count_model(with_tensors([node], [HUGE, ONE, *MANY]), {}, subject="graph") >= 0


@pytest.mark.parametrize(
    "tensor",
    [
        TensorProto(name="n", data_type=TensorProto.INT64, dims=[4], raw_data=bytes(8)),
        TensorProto(name="n", data_type=TensorProto.INT64, dims=[2], int64_data=[1, 2, 3]),
        TensorProto(name="n", data_type=999, dims=[1], raw_data=bytes(8)),
    ],
    ids=["too short", "too long", "of no type"],
)
def test_a_constant_that_is_damaged_is_named(tensor):
    for nodes, initializers in (
        ([helper.make_node("Identity", ["n"], ["y"])], [tensor]),
        ([helper.make_node("Constant", [], ["y"], value=tensor)], []),
    ):
        with pytest.raises(BundleError, match=r"expected (a graph that ONNX can run|inputs whose shapes fit)"):
            count_model(with_tensors(nodes, initializers), {}, subject="graph")


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Add", ["one"], ["y"]), helper.make_node("Gather", ["one", "one"], ["y"]),
        helper.make_node("LayerNormalization", ["one", "one"], ["y"], stash_type="?"),
    ],
    ids=lambda node: node.op_type,
)
def test_a_node_that_onnx_refuses_is_named(node):
    """By a checker's error, or by whatever its evaluator's code comes to."""
    with pytest.raises(BundleError, match=r"expected (a graph that ONNX can run|inputs whose shapes fit)"):
        count_model(with_tensors([node], [ONE]), {}, subject="graph")
