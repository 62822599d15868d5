"""What the tracer needs for every graph is made once, and the process is left as it was."""

from __future__ import annotations

import gc

import pytest
from torch.onnx._internal.exporter._registration import ONNXRegistry

from glimmer_export.exporter.checkpoint import CheckpointConfig
from glimmer_export.exporter.graphs import trace
from glimmer_export.exporter.stages import CodecDecoder
from glimmer_export.runtime.contract import GraphIO, IOTensor, codec_inputs
from tests.exported import GLIMMER, TINY


def test_graphs_share_torchs_table_of_operators(monkeypatch):
    shape = CheckpointConfig(**{**TINY, **GLIMMER}).shape
    states = IOTensor("memory_states", "float32", ("batch", "passages", "passage", shape.d_model))
    io = GraphIO(codec_inputs(shape, "fp16"), (states,))
    build, built = ONNXRegistry.from_torchlib, []

    def counted(opset_version: int) -> ONNXRegistry:
        built.append(opset_version)
        return build(opset_version)

    monkeypatch.setattr(ONNXRegistry, "from_torchlib", staticmethod(counted))
    graphs = [trace.graph_from_stage(CodecDecoder("fp16", shape.d_model), io, shape).graph for _ in range(2)]
    assert built == [trace.OPSET]
    first, second = ([node.op_type for node in graph] for graph in graphs)
    assert first == second
    assert "Cast" in first
    assert ONNXRegistry.from_torchlib is counted
    assert gc.isenabled()


def test_a_torch_without_that_table_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delattr(ONNXRegistry, "from_torchlib")
    with trace._shared_registry():
        assert not hasattr(ONNXRegistry, "from_torchlib")
