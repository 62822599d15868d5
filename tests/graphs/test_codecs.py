"""Each codec's decoder: what numpy decodes, by operators that every target has, in graphs that TensorRT takes."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from glimmer_export.calibration.passes.convert_fp16 import ConvertFp16
from glimmer_export.exporter.config.targets import read_target
from glimmer_export.exporter.engines.profiles import graph_profiles
from glimmer_export.exporter.graphs.rewrites import DeclareIO, NameNodes
from glimmer_export.exporter.graphs.samples import Sizes, sample_inputs
from glimmer_export.exporter.graphs.trace import graph_from_stage
from glimmer_export.exporter.lint import limits_of
from glimmer_export.exporter.lint.graph import LintGraph
from glimmer_export.exporter.lint.run import GPU_RULES
from glimmer_export.exporter.stages import CodecDecoder
from glimmer_export.runtime.codec_file import open_codec
from glimmer_export.runtime.contract import (
    CODECS,
    GraphIO,
    IOTensor,
    codec_inputs,
    codec_layout,
    codec_of,
    read_manifest,
    stage_of,
)
from tests.engines.ahead_of_time import compiler
from tests.exported import write_alone

T4, JETSON = (read_target(name).tensorrt for name in ("t4", "jetson-orin-agx"))
BATCHES = T4.model_copy(update={"profiles": T4.profiles[1:]})
SIZES = Sizes(2, passages=3, selected=2, question=4, passage=5, encoder_tokens=9, prefix=2, cache_length=3)
DECODING = {"Cast", "Mul", "Add", "Sub", "Floor", "Concat", "Reshape", "Gather"}
SHAPES = {"Shape", "Unsqueeze"}
"""What only says how long an axis is."""


def one_ulp(values: np.ndarray) -> np.ndarray:
    """The distance from each value to FP16's next."""
    return np.spacing(np.abs(values).astype(np.float16)).astype(np.float32)


@pytest.mark.parametrize("codec", CODECS)
def test_a_graph_decodes_what_numpy_decodes(glimmer, tmp_path, codec):
    shape = glimmer.shape
    states = IOTensor("memory_states", "float32", ("batch", "passages", "passage", shape.d_model))
    io = GraphIO(codec_inputs(shape, codec), (states,))
    graph = graph_from_stage(CodecDecoder(codec, shape.d_model), io, shape)
    NameNodes()(graph)
    DeclareIO(io)(graph)
    path = write_alone(graph, tmp_path, "decoder")
    inputs = sample_inputs(io, shape, SIZES, seed=1)
    layout = codec_layout(codec, shape.d_model)
    arrays = {array.name: inputs[array.name] for array in layout.arrays}
    tensors = {tensor.name: inputs[tensor.name] for tensor in (*layout.per_token, *layout.per_passage)}
    expected = open_codec(codec, shape.d_model, arrays, subject="sample").decode(tensors)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, inputs)
    assert found.shape == expected.shape == (2, 3, 5, shape.d_model)
    assert (np.abs(found - expected) <= one_ulp(expected)).all()
    assert len(np.unique(expected)) > 100


@pytest.mark.parametrize("variant", ["glimmer, codecs", pytest.param("lumen, codecs", marks=pytest.mark.slow)])
def test_codecs_are_decoded_by_common_operators(exported, variant):
    source = exported(variant)
    names = [name for name, io in source.io.items() if reads_memory(io) and "selected" not in input_names(io)]
    assert {codec_of(name) for name in names} == set(CODECS)
    for name in names:
        nodes = onnx.load(source.graph(name)).graph.node
        used = {node.op_type for node in nodes if node.name.startswith("codec/")}
        assert used <= DECODING | SHAPES, name
        assert used & DECODING


@pytest.mark.parametrize("codec", CODECS)
def test_the_graphs_of_a_codec_keep_the_rules_and_compile(exported, tmp_path, codec):
    source = exported("glimmer, codecs")
    manifest = read_manifest(source.bundle)
    names = [name for name, io in source.io.items() if reads_memory(io) and codec_of(name) == codec]
    assert {stage_of(name) for name in names} == {"live_stage_a", "live_stage_b"}
    for name in names:
        model = ir.load(source.graph(name))
        ConvertFp16()(model)
        path = write_alone(model, tmp_path, name)
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        graph = LintGraph(path, name, source.io[name])
        for limits in (limits_of(T4, "tensorrt"), limits_of(JETSON, "tensorrt"), limits_of(T4, "tensorrt-rtx")):
            assert [fault for rule in GPU_RULES for fault in rule.check(graph, limits)] == []
        profiles = graph_profiles(manifest, name, BATCHES)
        assert compiler("SM75").compile(path, profiles, tmp_path / "timing.cache").nbytes > 0


def reads_memory(io: GraphIO) -> bool:
    return "memory" in input_names(io)


def input_names(io: GraphIO) -> set[str]:
    return {tensor.name for tensor in io.inputs}
