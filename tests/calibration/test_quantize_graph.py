"""Codes do not depend on how a checkpoint's channels were scaled against their weights, wherever these stand."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from glimmer_export.calibration.linear import constant, find_linears, set_constant
from glimmer_export.calibration.policy import Policy
from glimmer_export.calibration.quantize import GraphOptions, QuantizedGraph, quantize_graph
from glimmer_export.calibration.scheme import TENSORRT
from glimmer_export.exporter.config.read import read_config
from tests.calibration.fp16_graphs import Arrays
from tests.calibration.passes.test_exact_rewrites import by_channel, folded_graphs
from tests.exported import REWRITTEN_VARIANTS

INT8 = read_config("policy", "int8", Policy)
PACKED = INT8.model_copy(update={"half_tables": ()})
"""With tables in INT8 too."""
EVERYTHING = INT8.model_copy(update={"keep": (), "lazy_layer": True, "embeddings": False})


def inflate_values(model: ir.Model, inputs: Arrays) -> Arrays:
    """A third of the rows of v times 2^8, the columns of o divided, here and in what caches hold; new inputs."""
    linears = {linear.name.removesuffix("/MatMul"): linear for linear in find_linears(model.graph)}
    by_head = {linear.output: linear for linear in linears.values() if linear.by_head}
    inputs = dict(inputs)
    for name, linear in linears.items():
        module, _, leaf = name.rpartition(".")
        if leaf != "o":
            continue
        output = constant(linear.weight)
        factor = np.where(np.random.default_rng(3).random(len(output)) < 1 / 3, np.float32(256), np.float32(1))
        set_constant(linear.weight, output / factor[:, None])
        # Absorbed values stand right before the heads are joined; the tracer may have folded their name away.
        heads = linear.x.producer().inputs[0].producer().inputs[0]
        if found := linears.get(f"{module}.v") or by_head.get(heads):
            values = constant(found.weight)
            set_constant(found.weight, values * (factor.reshape(len(values), 1, -1) if found.by_head else factor))
        layer = name.split(".block.")[1].split(".")[0]
        cache = f"past_key_values.{layer}.{'encoder' if 'EncDec' in name else 'decoder'}.value"
        if name.startswith("decoder.") and cache in inputs:
            inputs[cache] = inputs[cache] * factor.reshape(1, inputs[cache].shape[1], 1, -1)
    return inputs


def quantised(graph: str, model: ir.Model, inputs: Arrays) -> QuantizedGraph:
    options = GraphOptions(graph, int8=True, fp16=False, scheme=TENSORRT, policy=EVERYTHING, method="max")
    return quantize_graph(model, by_channel(model, inputs), options)


@pytest.mark.parametrize("variant", REWRITTEN_VARIANTS)
def test_inflated_values_leave_no_trace_in_the_codes(exported, variant):
    """In every attention: the encoders', the decoder's own, and that over the passages, absorbed and cached."""
    graphs = zip(folded_graphs(exported(variant)), folded_graphs(exported(variant)), strict=True)
    seen = 0
    for (graph, plain, inputs), (_, inflated, _) in graphs:
        inflated_inputs = inflate_values(inflated, inputs)
        reports = quantised(graph, plain, inputs), quantised(graph, inflated, inflated_inputs)
        assert reports[0] == reports[1]
        assert reports[0].notes == []
        codes = [name for name in plain.graph.initializers if ".o.weight" in name and name.endswith(".codes")]
        seen += len(codes)
        for name in codes:
            one, two = (constant(model.graph.initializers[name]).astype(int) for model in (plain, inflated))
            assert np.abs(one - two).max() <= 1, f"{graph}: {name}"
    assert seen


def test_each_product_is_balanced_by_some_pass(exported):
    """By a weight before it where one can take the factors, else in front of it; both are in the report's terms."""
    found: dict[str, list[str]] = {}
    for variant in ("glimmer, every option", "glimmer, exact algebra, two layers", "memory_fid"):
        for graph, model, inputs in folded_graphs(exported(variant)):
            found.setdefault(graph, []).extend(quantised(graph, model, inputs).scaled)
    ends = {graph: {name.rpartition(".")[2] for name in names} for graph, names in found.items()}
    assert ends == {
        "memory_encoder": set(), "question_encoder": set(), "live_stage_b": set(),
        "live_stage_a": {"q/MatMul", "score/MatMul"},  # absorbed attention reads the norm's output beside q
        "cross_kv": {"k/MatMul", "v/MatMul"}, "decoder_prefill": {"o/MatMul"},
        "decoder_step": {"o/MatMul", "shared/MatMul"},  # the tied projection reads what was scaled behind the norm
    }


def parsed(text: str) -> ir.Model:
    return ir.from_proto(onnx.shape_inference.infer_shapes(onnx.parser.parse_model(text)))


FEED_FORWARD = {
    "gelu": ("act = Gelu (up)", True),
    "silu": ("gate = Sigmoid (up) \n act = Mul (up, gate)", True),
    "gated silu": ("gate = Sigmoid (side) \n silu = Mul (side, gate) \n act = Mul (silu, up)", False),
    "relu": ("act = Relu (up)", False),
}


@pytest.mark.parametrize("activation", FEED_FORWARD)
def test_no_activation_keeps_a_feed_forward_product_from_being_balanced(activation):
    """What no factor passes is multiplied in front of `wo`."""
    way, scaled = FEED_FORWARD[activation]
    model = parsed(f"""
        <ir_version: 10, opset_import: ["" : 20]>
        layer (float[1, 2, 8] x) => (float[1, 2, 8] y)
        <float[8, 8] wi_0 = {{0}}, float[8, 8] wi_1 = {{0}}, float[8, 8] wo = {{0}}>
        {{
            side = MatMul (x, wi_0)
            up = MatMul (x, wi_1)
            {way}
            y = MatMul (act, wo)
        }}
    """)
    random = np.random.default_rng(0)
    for place, name in enumerate(("wi_0", "wi_1", "wo")):
        set_constant(model.graph.initializers[name], random.normal(size=(8, 8)).astype(np.float32))
        [node for node in model.graph if node.op_type == "MatMul"][place].name = f"layer.{name}/MatMul"
    done = quantised("graph", model, {"x": random.normal(size=(1, 2, 8)).astype(np.float32)})
    assert ("layer.wo/MatMul" in done.scaled) == scaled
    assert "layer.wo/MatMul" in done.int8
    assert done.notes == []


def test_a_table_that_cannot_be_packed_is_named():
    """Four codes stand in one number, and a row has six."""
    model = parsed("""
        <ir_version: 10, opset_import: ["" : 20]>
        layer (int32[1, 2] ids) => (float[1, 2, 6] y)
        <float[2, 6] table = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}>
        {
            y = Gather (table, ids)
        }
    """)
    next(iter(model.graph)).name = "shared/Gather"
    options = GraphOptions("graph", int8=True, fp16=False, scheme=TENSORRT, policy=PACKED, method="max")
    done = quantize_graph(model, by_channel(model, {"ids": np.int32([[0, 1]])}), options)
    assert (done.int8, done.kept) == ([], ["shared/Gather"])
    assert [note.split(":")[0] for note in done.notes] == ["shared/Gather"]


@pytest.mark.parametrize(("largest", "named"), [(3e4, 0), (4e4, 1), (1e5, 1)])
def test_a_table_that_fp16_cannot_hold_is_named(largest, named):
    model = parsed(f"""
        <ir_version: 10, opset_import: ["" : 20]>
        layer (int32[1, 2] ids) => (float[1, 2, 4] y)
        <float[2, 4] table = {{1, 2, 3, {largest}, 5, 6, 7, 8}}>
        {{
            y = Gather (table, ids)
        }}
    """)
    next(iter(model.graph)).name = "shared/Gather"
    options = GraphOptions("graph", int8=False, fp16=True, scheme=TENSORRT, policy=INT8, method="max")
    done = quantize_graph(model, by_channel(model, {"ids": np.int32([[0, 1]])}), options)
    assert [note.split(":")[0] for note in done.kept_fp32] == ["shared/Gather"] * named


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("h = MatMul (x, w) \n y = MatMul (h, w)", ["first", "second"]),
        ("v = Reshape (w, shape) \n y = MatMul (x, v)", ["second"]),
    ],
    ids=["read twice", "shaped at each run"],
)
def test_a_product_whose_weight_is_not_its_own_is_named(body, named):
    """It cannot be changed for one of its readers, so it stays in float, and the report says so."""
    model = parsed(f"""
        <ir_version: 10, opset_import: ["" : 20]>
        layer (float[1, 2, 4] x, int64[2] shape) => (float[1, 2, 4] y)
        <float[4, 4] w = {{1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3, 4}}>
        {{
            {body}
        }}
    """)
    for node, name in zip(model.graph, ("first", "second"), strict=True):
        node.name = name
    done = quantised("graph", model, {"x": np.ones((1, 2, 4), np.float32), "shape": np.int64([4, 4])})
    assert done.int8 == []
    assert [note.split(":")[0] for note in done.notes] == named
