"""Products that read one value are one product in the decoder's graphs, and apart again wherever passes read them."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from glimmer_export.calibration.load_graph import load_graph as load_apart
from glimmer_export.calibration.passes.convert_fp16 import ConvertFp16
from glimmer_export.calibration.passes.edit import initializer
from glimmer_export.calibration.passes.merge_products import MergeProducts, SplitProducts
from glimmer_export.calibration.passes.round_fp16 import RoundFp16
from glimmer_export.calibration.policy import Policy
from glimmer_export.calibration.quantize import GraphOptions, quantize_graph
from glimmer_export.calibration.scheme import TENSORRT, X86_VNNI
from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from glimmer_export.exporter.config.read import read_config
from tests.calibrated import calibrated
from tests.calibration.fp16_graphs import graphs_of, run, tracked
from tests.exported import REWRITTEN_VARIANTS, load_graph

DECODERS = ("decoder_step", "decoder_prefill")
QKV, WI = "k+v+q", "wi_0+wi_1"


def decoders(source):
    return ((path, inputs) for path, inputs in graphs_of(source) if path.name.startswith(DECODERS))


def named(model: ir.Model) -> Counter[str]:
    return Counter(str(node.name).rpartition(".")[2] for node in model.graph if node.op_type == "MatMul")


def weights(model: ir.Model) -> dict[str, np.ndarray]:
    return {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}


def quantized(path, inputs, scheme, *, fp16=False, keep=()):
    model = load_graph(path)
    options = GraphOptions(
        path.stem, int8=True, fp16=fp16, scheme=scheme, policy=read_config("policy", "int8", Policy), method="max",
        keep=keep,
    )
    quantize_graph(model, tracked(model, [inputs]), options)
    return model


def outputs(model: ir.Model, inputs) -> dict[str, np.ndarray]:
    """Of a run that rounds to FP16 wherever the graph says so: ONNX Runtime leaves that out where it pleases."""
    copy = ir.from_proto(ir.to_proto(model))  # a clone shares its types, which are changed in place
    RoundFp16()(copy)
    return run(copy, inputs)


def assert_same(model: ir.Model, inputs, merged: int) -> None:
    """Merging computes the same bits with fewer products, and splitting gives everything back."""
    expected, before = outputs(model, inputs), weights(model)
    nodes = {(node.name, node.op_type) for node in model.graph}
    values = {value.name for node in model.graph for value in node.outputs}
    products = sum(named(model).values())
    MergeProducts()(model)
    assert sum(named(model).values()) == products - merged
    for name, found in outputs(model, inputs).items():
        np.testing.assert_array_equal(found, expected[name], err_msg=name)
    assert SplitProducts()(model).modified == bool(merged)
    assert {(node.name, node.op_type) for node in model.graph} == nodes
    assert {value.name for node in model.graph for value in node.outputs} == values
    after = weights(model)
    assert set(after) == set(before)
    for name, found in after.items():
        assert found.dtype == before[name].dtype
        np.testing.assert_array_equal(found, before[name], err_msg=name)
    for name, found in outputs(model, inputs).items():
        np.testing.assert_array_equal(found, expected[name], err_msg=name)


def layers(model: ir.Model) -> int:
    return sum(str(node.name).endswith("SelfAttention.o/MatMul") for node in model.graph)


@pytest.mark.parametrize("variant", REWRITTEN_VARIANTS)
def test_exported_graphs_are_merged_and_split_exactly(exported, variant):
    for path, inputs in decoders(exported(variant)):
        model = load_graph(path)
        gated = any(str(node.name).endswith("wi_1/MatMul") for node in model.graph)
        written = named(ir.load(path))
        assert written[f"{QKV}/MatMul"] == layers(model)
        assert written[f"{WI}/MatMul"] == layers(model) * gated
        assert not {name for name in written if name.startswith(("wi_0/", "wi_1/"))}
        assert_same(model, inputs, layers(model) * (3 if gated else 2))


@pytest.mark.parametrize("precision", ["cpu", "tensorrt", "tensorrt, fp16"])
def test_codes_and_scales_are_those_of_products_apart(exported, precision):
    for path, inputs in decoders(exported("glimmer, exact algebra")):
        scheme = X86_VNNI if precision == "cpu" else TENSORRT
        model = quantized(path, inputs, scheme, fp16="fp16" in precision)
        assert sum(node.op_type == "QuantizeLinear" for node in model.graph) > layers(model)
        assert_same(model, inputs, layers(model) * 3)
    model = load_graph(path)
    ConvertFp16()(model)
    assert_same(model, inputs, layers(model) * 3)


@pytest.mark.parametrize("kept", ["k", "kv", "qkv"])
def test_only_what_agrees_in_precision_is_merged(exported, kept):
    path, inputs = next(decoders(exported("glimmer, exact algebra")))
    model = quantized(path, inputs, X86_VNNI, keep=(rf"block\.1\.layer\.0\.SelfAttention\.({'|'.join(kept)})/",))
    found = {}
    for node in model.graph:
        if node.op_type == "MatMul" and "block.1.layer.0.SelfAttention." in node.name:
            found.setdefault(node.inputs[1].is_initializer(), set()).add(node.name.rpartition(".")[2][0])
    assert found[True] == {*kept}
    assert_same(model, inputs, layers(model) * 3 - (len(kept) in (1, 2)))


def test_scales_of_tokens_are_multiplied_once(exported, once):
    source = exported("glimmer, exact algebra")

    def make(directory):
        quantize_bundle(calibrated(source), directory / "bundle", QuantizeOptions("int8", "cpu", cpu="x86-vnni"))

    path = once("glimmer, exact algebra, int8, cpu", make) / "bundle" / "graphs" / "decoder_step.onnx"
    model = ir.load(path)
    (product,) = (node for node in model.graph if node.name == f"decoder.block.1.layer.0.SelfAttention.{QKV}/MatMul")
    (scaled,) = product.outputs[0].consumers()
    (split,) = scaled.outputs[0].consumers()
    assert [product.inputs[1].producer().op_type, scaled.op_type, split.op_type] == ["DequantizeLinear", "Mul", "Split"]
    assert scaled.inputs[1].name.endswith("/token_scale")
    assert len(split.outputs) == 3
    assert {*named(load_apart(path))} >= {"q/MatMul", "k/MatMul", "v/MatMul", "wi_0/MatMul", "wi_1/MatMul"}


def test_other_stages_are_left_as_they_are(exported):
    for path, _ in graphs_of(exported("glimmer")):
        written = ir.load(path)
        assert SplitProducts()(written).modified == path.name.startswith(DECODERS)


@pytest.mark.parametrize("sizes", [[32, 32, 31], [64, 32], [96, 0, 0], [-32, 64, 64]], ids=str)
def test_a_split_that_is_not_as_its_name_says_is_left_alone(exported, sizes):
    written = ir.load(exported("glimmer, exact algebra").graph("decoder_step"))
    (split,) = (node for node in written.graph if node.name == f"decoder.block.1.layer.0.SelfAttention.{QKV}/Split")
    split.replace_input_with(1, initializer(written.graph, "others", np.array(sizes, np.int64)))
    SplitProducts()(written)
    assert split in list(written.graph)
    assert "decoder.block.1.layer.0.SelfAttention.o/MatMul" in {node.name for node in written.graph}
    assert named(written)[f"{QKV}/MatMul"] == 1
