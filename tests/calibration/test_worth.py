"""INT8 in a decoder stands only where a GPU reads so much less that it outweighs the kernels of Q/DQ."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx_ir as ir
import pytest

from glimmer_export.calibration.linear import find_linears
from glimmer_export.calibration.load_graph import load_graph
from glimmer_export.calibration.passes.fold_weights import FoldWeights
from glimmer_export.calibration.worth import COPIES, Gpu, asks_given_keys, not_worth
from glimmer_export.exporter.bundle.quantize import ANY_SPEED, QuantizeOptions, quantize_bundle
from glimmer_export.runtime.contract import OptionError
from tests.calibrated import calibrated

SLOW, FAST = Gpu("slow", 100, 5.0), Gpu("fast", 4800, 2.0)
"""A kernel's time is that of 0.5 MB on the one, and of 9.6 MB on the other."""


def products(*widths: int) -> ir.Graph:
    """Products of so many columns each, which read a value of 1,000 channels; the last one reads another."""
    values = [ir.val(name, ir.DataType.FLOAT, [1, 1000]) for name in ("first", "second")]
    nodes, weights = [], []
    for place, width in enumerate(widths):
        weight = ir.Value(name=f"{place}.weight", const_value=ir.tensor(np.zeros((1000, width), np.float32)))
        weights.append(weight)
        value = values[int(place == len(widths) - 1)]
        nodes.append(ir.node("MatMul", [value, weight], name=f"{place}/MatMul"))
    return ir.Graph(values, [node.outputs[0] for node in nodes], nodes=nodes, initializers=weights)


def test_products_that_read_one_value_are_judged_together():
    names = {"0/MatMul", "1/MatMul", "2/MatMul"}
    graph = products(300, 300, 400)
    found = not_worth(graph, names, [SLOW], saved_bytes=1)
    assert found is not None
    assert found.names == ("2/MatMul",)  # 0.4 MB beside 0.6 of the two others
    assert found.most_bytes == 400_000
    assert not_worth(graph, names, [SLOW], saved_bytes=3) is None
    alone = not_worth(graph, {"0/MatMul", "2/MatMul"}, [SLOW], saved_bytes=1)
    assert alone is not None
    assert alone.names == ("0/MatMul", "2/MatMul")


def test_one_machine_that_gains_is_enough():
    graph = products(600, 600)
    names = {"0/MatMul", "1/MatMul"}
    assert not_worth(graph, names, [FAST, SLOW], saved_bytes=1) is None
    found = not_worth(graph, names, [FAST], saved_bytes=1)
    assert found is not None
    assert found.note([FAST]) == (
        "2 products: not INT8, as the largest that read one value would save 0.60 MB of weights a run, 0.12 us "
        "on fast, where the kernel that Q/DQ adds takes 2 us"
    )


@pytest.mark.parametrize(("form", "found"), [("cached", 2), ("absorbed", 0)])
def test_queries_of_given_keys_are_found(exported, form, found):
    """Cached cross-attention's, a layer: self-attention writes to its keys first, and the absorbed form has none."""
    model = load_graph(exported("glimmer, both forms").graph(f"decoder_step.{form}"))
    FoldWeights()(model)
    names = {linear.name for linear in find_linears(model.graph)}
    asking = asks_given_keys(model.graph, names)
    assert asking == tuple(f"decoder.block.{layer}.layer.1.EncDecAttention.q/MatMul" for layer in range(found))
    assert asks_given_keys(model.graph, names - set(asking)) == ()


def test_queries_of_given_keys_stay_in_fp16_whatever_int8_saves(exported, tmp_path, monkeypatch):
    monkeypatch.setattr("glimmer_export.calibration.worth.Gpu.gain", lambda *_: 2.0)
    bundle = calibrated(exported("glimmer"))
    step = quantize_bundle(bundle, tmp_path / "fast", QuantizeOptions("int8-fp16", "tensorrt"))["decoder_step"]
    assert [name.rpartition(".")[2] for name in step.not_worth] == ["q/MatMul"] * 2
    assert f"2 products: {COPIES}" in step.notes
    assert set(step.not_worth) <= set(step.kept)
    assert not set(step.not_worth) & set(step.int8)


def test_a_small_decoder_stays_in_fp16_and_the_report_says_why(exported, tmp_path):
    """Exact algebra of two layers: every product is far below what a kernel costs."""
    bundle = calibrated(exported("glimmer, exact algebra, two layers"))
    options = QuantizeOptions("int8-fp16", "tensorrt")
    done = quantize_bundle(bundle, tmp_path / "fast", options)
    step = done["decoder_step"]
    assert len(step.not_worth) == 21
    assert set(step.not_worth) <= set(step.kept)
    assert not set(step.not_worth) & set(step.int8)
    assert [note for note in step.notes if note.startswith("21 products: not INT8")]
    assert all(not graph.not_worth for name, graph in done.items() if name != "decoder_step")
    everything = quantize_bundle(bundle, tmp_path / "small", replace(options, gpu=ANY_SPEED))["decoder_step"]
    assert everything.not_worth == []
    assert set(everything.int8) == {*step.not_worth, *step.int8}


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (QuantizeOptions("int8", "cpu", gpu="t4"), "no GPU for --target cpu, found t4"),
        (QuantizeOptions("int8", "tensorrt", gpu="cpu"), "a machine with a GPU, found cpu"),
        (QuantizeOptions("int8", "tensorrt", gpu="abacus"), "none of that name"),
    ],
)
def test_what_is_no_gpu_is_named(exported, tmp_path, options, found):
    bundle = calibrated(exported("glimmer, exact algebra, two layers"))
    with pytest.raises(OptionError, match=found):
        quantize_bundle(bundle, tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
