"""What tests/traced.py gives an exporter is what the tracer gives it."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
import torch

from glimmer_export.exporter.checkpoint import CheckpointConfig, random_weights
from glimmer_export.exporter.graphs import trace
from glimmer_export.exporter.graphs.blank_weights import READ_ELEMENTS
from glimmer_export.exporter.graphs.trace import graph_from_stage
from glimmer_export.exporter.stages import model_from_weights, stage_from_model
from glimmer_export.runtime.contract import CROSS_KV, Forms, graph_io
from tests.exported import GLIMMER, TINY
from tests.traced import _digest

FORMS = Forms(("fp16",), "full", "cached")
LARGE = {"d_model": 96, "d_kv": 24}
"""Products of more weights than the tracer computes with: the graph has views of the stage's own."""


def stage_of(seed: int, **changes):
    config = CheckpointConfig(**{**TINY, **GLIMMER, **changes})
    model = model_from_weights(config, random_weights(config, seed=seed))
    return stage_from_model(model, CROSS_KV, FORMS), graph_io(config.shape, FORMS)[CROSS_KV], config.shape


@pytest.fixture
def traces(monkeypatch) -> list[str]:
    """The stages that the tracer itself was given since."""
    real, given = torch.onnx.export, []

    def export(stage, *arguments, **options):
        given.append(type(stage).__name__)
        return real(stage, *arguments, **options)

    monkeypatch.setattr(torch.onnx, "export", export)
    return given


def test_a_stage_is_traced_once_to_the_same_graph_of_its_own_weights(traces):
    stage, *others = stage_of(seed=11, **LARGE)
    expected = ir.serde.serialize_model(graph_from_stage(stage, *others)).SerializeToString(deterministic=True)
    trace.graph_from_stage(stage, *others)
    traces.clear()
    again, *_ = stage_of(seed=11, **LARGE)
    found = trace.graph_from_stage(again, *others)
    assert traces == []
    assert ir.serde.serialize_model(found).SerializeToString(deterministic=True) == expected
    weights = [value.const_value.numpy() for value in found.graph.initializers.values()]
    large = [weight for weight in weights if weight.size > READ_ELEMENTS]
    assert large
    for weight in large:
        assert any(np.shares_memory(weight, own.detach().numpy()) for own in again.parameters())


def test_other_weights_and_settings_are_other_stages():
    same = [stage_of(seed=11), stage_of(seed=11)]
    others = [stage_of(12), stage_of(11, d_kv=16), stage_of(11, num_decoder_layers=1), stage_of(11, num_retrieved=6)]
    tied = stage_of(seed=11)
    first, second = list(tied[0].parameters())[:2]
    second.data = first.data
    trained = stage_of(seed=11)
    trained[0].train()
    digests = [_digest(*stage) for stage in (*same, *others, tied, trained)]
    assert digests[0] == digests[1]
    assert len({*digests}) == len(digests) - 1
