"""Tables of INT8 rows: each with a scale of its own, looked up by the same ids."""

from __future__ import annotations

import numpy as np
import pytest

from glimmer_export.calibration.passes.quantize_embedding import QuantizeEmbedding
from glimmer_export.calibration.scheme import TENSORRT, X86_VNNI
from tests.calibration.fp16_graphs import every_value, graphs_of
from tests.exported import load_graph


@pytest.mark.parametrize("scheme", [X86_VNNI, TENSORRT], ids=["x86-vnni", "tensorrt"])
@pytest.mark.parametrize("half", [False, True], ids=["int8", "fp16"])
@pytest.mark.parametrize("graph", ["memory_encoder", "decoder_step"])
def test_rows_are_off_by_half_a_step(glimmer, scheme, graph, half):
    path, inputs = next((path, inputs) for path, inputs in graphs_of(glimmer) if path.stem == graph)
    model = load_graph(path)
    before = {value.name: value for value in model.graph.initializers.values()}
    lookup = next(node for node in model.graph if node.op_type == "Gather" and node.inputs[0].name in before
                  and node.inputs[0].shape[0] == glimmer.shape.vocab_size)
    table, name = lookup.inputs[0].const_value.numpy(), lookup.outputs[0].name
    expected = every_value(model, inputs)[name]
    assert QuantizeEmbedding(scheme, keep=lambda _: False, half=lambda _: half)(model).modified
    found = every_value(model, inputs)[name]
    scale = np.abs(table).max(axis=1) / (2.0**11 if half else scheme.weight_levels)
    ids = inputs["input_ids" if graph == "memory_encoder" else "decoder_input_ids"]
    assert (np.abs(found - expected) <= scale[ids][..., None] * 0.51).all()
    assert (found != expected).any()


def test_a_kept_table_is_left(glimmer):
    path, _ = next(graphs_of(glimmer))
    assert not QuantizeEmbedding(X86_VNNI, keep=lambda _: True)(load_graph(path)).modified
