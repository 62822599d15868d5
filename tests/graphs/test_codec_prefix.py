"""The codec's decoding is a part of its own in front of every graph that reads memory."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from glimmer_export.exporter.graphs.samples import Sizes, sample_inputs
from glimmer_export.exporter.tolerances import TOLERANCES, max_abs_error
from glimmer_export.runtime.codecs import decode_fp16
from tests.exported import VARIANTS, Exported

SIZES = Sizes(2, passages=3, selected=2, question=4, passage=5, encoder_tokens=9, prefix=2, cache_length=3)
READERS = {"glimmer": {"live_stage_a"}, "lumen": {"live_stage_b"}, "memory_fid": {"live_stage_b"}, "fid": set()}
CODEC_INPUTS = {"memory", "memory_scale"}
SELECTION_INPUTS = {"memory_mask", "selected"}
"""Where passages are selected before they are decoded, the prefix does both."""


def readers(source: Exported) -> dict[str, onnx.ModelProto]:
    """The graphs that read memory."""
    models = {name: onnx.load(source.graph(name)) for name in source.io}
    return {name: model for name, model in models.items() if CODEC_INPUTS & {value.name for value in model.graph.input}}


def is_codec(node: onnx.NodeProto) -> bool:
    return node.name.startswith("codec/")


def cut(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same graph without its codec, reading decoded memory."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    (memory,) = (value for value in graph.input if value.name == "memory")
    read = {name for node in graph.node if not is_codec(node) for name in node.input}
    dims = [dim.dim_param or dim.dim_value for dim in memory.type.tensor_type.shape.dim]
    kept = {
        "node": [node for node in graph.node if not is_codec(node)],
        "initializer": [weight for weight in graph.initializer if not weight.name.startswith("codec/")],
        "value_info": [value for value in graph.value_info if value.name != "memory_states"],
        "input": [
            helper.make_tensor_value_info("memory_states", TensorProto.FLOAT, dims) if value.name == "memory" else value
            for value in graph.input
            if value.name != "memory_scale" or value.name in read
        ],
    }
    for field, values in kept.items():
        copies = [type(value).FromString(value.SerializeToString()) for value in values]
        getattr(graph, field).clear()
        getattr(graph, field).extend(copies)
    return result


def run(model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


@pytest.mark.parametrize("variant", VARIANTS)
def test_codec_nodes_stand_apart(exported, variant):
    source = exported(variant)
    found = readers(source)
    lazy = source.forms.stage_a == "lazy" and source.shape.num_stage_a_layers == 1
    from_memory = lazy or source.shape.separate_reranker
    assert set(found) == READERS[source.shape.architecture] | ({"live_stage_b"} if from_memory else set())
    for name, model in found.items():
        selects = "selected" in {value.name for value in model.graph.input}
        # Lazy stage A applies the scale itself, to less than the memory.
        inputs = {"memory"} if lazy and name == "live_stage_a" else CODEC_INPUTS
        inputs = inputs | (SELECTION_INPUTS if selects else set())
        boundary = {"memory_states", "memory_states_mask"} if selects else {"memory_states"}
        nodes = list(model.graph.node)
        codec = [node for node in nodes if is_codec(node)]
        rest = [node for node in nodes if not is_codec(node)]
        assert codec
        assert nodes == [*codec, *rest]
        constants = {weight.name for weight in model.graph.initializer if weight.name.startswith("codec/")}
        outputs = {name for node in codec for name in node.output}
        assert {name for node in codec for name in node.input} <= inputs | constants | outputs
        read = {name for node in rest for name in node.input}
        assert read & (inputs | constants | outputs) == boundary


@pytest.mark.parametrize("variant", VARIANTS)
def test_cut_off_the_rest_is_a_valid_graph_of_the_same_outputs(exported, variant):
    source = exported(variant)
    for name, model in readers(source).items():
        if "selected" in {value.name for value in model.graph.input}:
            continue
        bare = cut(model)
        onnx.checker.check_model(bare, full_check=True)
        inputs = sample_inputs(source.io[name], source.shape, SIZES, seed=3)
        expected = run(model, inputs)
        if "memory_scale" in {value.name for value in bare.graph.input}:
            decoded = inputs.pop("memory").astype(np.float32)
        else:
            decoded = decode_fp16(inputs.pop("memory"), inputs.pop("memory_scale"))
        for found, wanted in zip(run(bare, {**inputs, "memory_states": decoded}), expected, strict=True):
            assert max_abs_error(found, wanted) <= TOLERANCES["fp32"].limit(wanted)
