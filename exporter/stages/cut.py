"""Which stage makes which graph."""

from __future__ import annotations

from torch import nn

from exporter.stages.decoding import CrossKV, DecoderPrefill, DecoderStep
from exporter.stages.encoding import JoinedEncoder, MemoryEncoder, QuestionEncoder
from exporter.stages.live import ConditionedStageB, LiveStageA, MemoryStageB, SelectingStageB
from exporter.stages.model import GlimmerModel

__all__ = ["stage_from_model"]


def stage_from_model(model: GlimmerModel, graph: str) -> nn.Module:
    """The module of one graph, sharing the model's weights. Memory comes decoded: codecs are graphs of their own."""
    traits = model.config.shape.traits
    stage_b = SelectingStageB if traits.selects else ConditionedStageB if traits.encodes_question else MemoryStageB
    stages: dict[str, type[nn.Module]] = {
        "memory_encoder": MemoryEncoder,
        "question_encoder": QuestionEncoder,
        "encoder": JoinedEncoder,
        "live_stage_a": LiveStageA,
        "live_stage_b": stage_b,
        "cross_kv": CrossKV,
        "decoder_prefill": DecoderPrefill,
        "decoder_step": DecoderStep,
    }
    return stages[graph](model).eval()
