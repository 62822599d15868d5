"""Our stages by torch, placed as they are for timing, give what the graphs give; and the peer's modes each other."""

from __future__ import annotations

import numpy as np
import pytest

from glimmer_export.exporter.bench.gpu.floors import run_floors
from glimmer_export.exporter.bench.gpu.kernels import count_kernels, engine_layers
from glimmer_export.exporter.bench.gpu.setting import TINY
from glimmer_export.exporter.bench.gpu.torch_stages import ModelGraphs, TorchStages
from glimmer_export.exporter.graphs.samples import Sizes, sample_inputs
from glimmer_export.exporter.tolerances import TOLERANCES, max_abs_error
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.contract import read_manifest


@pytest.mark.parametrize("variant", ["glimmer", "glimmer, codecs", "glimmer, exact algebra, two layers"])
def test_stages_are_those_of_the_graphs(exported, variant):
    source = exported(variant)
    manifest = read_manifest(source.bundle)
    stages = TorchStages(source.checkpoint, "cpu", "float32")
    sizes = Sizes(batch=2, passages=4, selected=2, question=5, passage=7, encoder_tokens=24, prefix=1, cache_length=6)
    backend = OnnxRuntimeBackend(1)
    for name, io in manifest.io().items():
        inputs = sample_inputs(io, manifest.model, sizes, seed=3)
        expected = backend.load(source.graph(name), io).run(inputs)
        found = dict(zip(expected, stages.outputs(manifest, name, inputs), strict=True))
        for output, values in expected.items():
            if np.issubdtype(values.dtype, np.floating):
                assert max_abs_error(found[output], values) <= TOLERANCES["fp32"].limit(values), (name, output)


def test_floors_are_those_of_cost(glimmer):
    manifest = read_manifest(glimmer.bundle)
    floors = run_floors(manifest, TINY)
    assert floors.keys() == manifest.graphs.keys()
    assert floors == run_floors(ModelGraphs(manifest.model, manifest.forms), TINY)
    for floor in floors.values():
        assert floor["floor_ms"] == max(floor["arithmetic_ms"], floor["bandwidth_ms"]) > 0
    assert floors["decoder_step"]["runs"] == TINY.answer_tokens


def test_without_a_gpu_no_kernel_is_counted(glimmer):
    ran = []
    assert count_kernels(lambda: ran.append(1))["how"] == "not seen"
    assert count_kernels(lambda: ran.append(1), layers=7) == {
        "kernels": 7, "how": "layers of the engine", "error": "torch sees no GPU"
    }
    graph = OnnxRuntimeBackend(1).load(glimmer.graph("decoder_step"), glimmer.io["decoder_step"])
    assert engine_layers(graph) is None
