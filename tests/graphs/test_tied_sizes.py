"""Sizes of one name are one size to the tracer: one symbol a name, in all the inputs of every stage that is traced.

Where it holds two symbols for one batch, torch 2.11 refuses what torch 2.13 lets pass (a lazy stage A of two layers).
"""

from __future__ import annotations

from collections import defaultdict
from itertools import product
from typing import Any

import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

from glimmer_export.exporter.checkpoint import CheckpointConfig
from glimmer_export.exporter.graphs import trace
from glimmer_export.exporter.graphs.trace import graph_from_stage
from glimmer_export.exporter.stages import GlimmerModel, stage_from_model
from glimmer_export.exporter.stages.decoding import DecoderStep
from glimmer_export.runtime.contract import (
    CODECS,
    CROSS_ATTENTION_FORMS,
    STAGE_A_FORMS,
    Forms,
    GraphIO,
    codec_of,
    graph_io,
)
from tests.exported import FAST, GLIMMER, SLOW, TINY, TWO_LAYERS

MODELS: dict[str, dict[str, Any]] = {
    "glimmer": GLIMMER,
    "glimmer, two layers": {**GLIMMER, **TWO_LAYERS},
    "lumen": FAST["lumen"],
    "memory_fid": FAST["memory_fid"],
    "fid": FAST["fid"],
    "fid, its own code": SLOW["fid, its own code"],
}
"""Every architecture, and every option by which a stage's inputs meet in another way."""


class Traced(BaseException):
    """Leaves the tracer with a stage's program before a graph is made of it; an Exception it would take for its own."""

    def __init__(self, program: ExportedProgram) -> None:
        super().__init__()
        self.program = program


@pytest.fixture(scope="module")
def stages() -> dict[tuple[Any, ...], tuple[str, nn.Module, GraphIO]]:
    """Each stage that is traced, once, with the first model that has it: in every form, for every codec."""
    found: dict[tuple[Any, ...], tuple[str, nn.Module, GraphIO]] = {}
    with pytest.MonkeyPatch.context() as patch:
        for model in MODELS:
            config = config_of(model)

            def note(stage, io, _shape, model=model, config=config) -> ir.Model:
                biased = config.cross_attention_bias and type(stage) is DecoderStep
                found.setdefault((type(stage), io.inputs, biased), (model, stage, io))
                return ir.Model(ir.Graph([], [], nodes=[]), ir_version=10)

            patch.setattr(trace, "graph_from_stage", note)
            whole = GlimmerModel(config).requires_grad_(False).eval()
            for stage_a, cross_attention in product(STAGE_A_FORMS, CROSS_ATTENTION_FORMS):
                forms = Forms(tuple(CODECS), stage_a, cross_attention)
                for name, io in graph_io(config.shape, forms).items():
                    stage = stage_from_model(whole, name, forms)
                    front = trace.memory_prefix(stage, io, config.shape, codec_of(name))
                    note(stage, io if front is None else front.stage_io, config.shape)
    return found


def config_of(model: str) -> CheckpointConfig:
    return CheckpointConfig(**{**TINY, **MODELS[model], "num_decoder_layers": 1})


def symbols(program: ExportedProgram, io: GraphIO) -> dict[str, set[str]]:
    """What the tracer calls each size that the contract names, over all inputs."""
    values = {node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"}
    found = defaultdict(set)
    for tensor, name in zip(io.inputs, program.graph_signature.user_inputs, strict=True):
        for dim, size in zip(tensor.dims, values[name].shape, strict=True):
            if isinstance(dim, str):
                found[dim].add(str(size))
    return found


@pytest.mark.parametrize("model", MODELS)
def test_inputs_of_a_stage_share_their_sizes(model, stages, monkeypatch):
    export, shape = torch.export.export, config_of(model).shape

    def leave(*arguments, **options) -> None:
        raise Traced(export(*arguments, **options))

    monkeypatch.setattr(torch.export, "export", leave)
    of_model = [(stage, io) for first, stage, io in stages.values() if first == model]
    assert of_model
    for stage, io in of_model:
        with pytest.raises(Traced) as left:
            graph_from_stage(stage, io, shape)
        found = symbols(left.value.program, io)
        assert "batch" in found
        assert {dim: names for dim, names in found.items() if len(names) > 1} == {}, type(stage).__name__
