"""Which stage makes which graph."""

from __future__ import annotations

from torch import nn

from glimmer_export.exporter.stages.decoding import CrossKV, DecoderPrefill, DecoderStep
from glimmer_export.exporter.stages.encoding import (
    ConditionedStageB,
    JoinedEncoder,
    LiveStageA,
    MemoryEncoder,
    MemoryStageB,
    QuestionEncoder,
    SelectingStageB,
)
from glimmer_export.exporter.stages.lazy import DeepLazyStageA, LazyStageA, Shortlist
from glimmer_export.exporter.stages.model import GlimmerModel
from glimmer_export.runtime.contract import Forms, form_of, stage_of, stages

__all__ = ["applies_scale", "stage_from_model"]


def stage_from_model(model: GlimmerModel, graph: str, forms: Forms) -> nn.Module:
    """The module of one graph in the given form, sharing the model's weights.

    Memory comes decoded (but for its scale where the stage `applies_scale`), and selected where the graph selects it:
    codec and selection are graphs of their own.
    """
    absorbed = (form_of(graph) or forms.cross_attention) == "absorbed"
    match stage_of(graph):
        case stages.MEMORY_ENCODER:
            stage: nn.Module = MemoryEncoder(model)
        case stages.QUESTION_ENCODER:
            stage = QuestionEncoder(model)
        case stages.ENCODER:
            stage = JoinedEncoder(model)
        case stages.LIVE_SHORTLIST:
            stage = Shortlist(model)
        case stages.LIVE_STAGE_A:
            stage = _stage_a(model, forms)
        case stages.LIVE_STAGE_B:
            stage = _stage_b(model, forms)
        case stages.CROSS_KV:
            stage = CrossKV(model)
        case stages.DECODER_PREFILL:
            stage = DecoderPrefill(model, absorbed=absorbed, log_probability=forms.log_probability)
        case stages.DECODER_STEP:
            stage = DecoderStep(
                model, absorbed=absorbed, log_probability=forms.log_probability, takes_drafts=forms.takes_drafts
            )
        case _:
            raise ValueError(f"no stage makes a graph {graph!r}")
    return stage.eval()


def applies_scale(stage: nn.Module) -> bool:
    """Whether a stage takes memory before the codec's scale, and the scale beside it."""
    return isinstance(stage, LazyStageA)


def _stage_a(model: GlimmerModel, forms: Forms) -> nn.Module:
    if forms.stage_a == "full":
        return LiveStageA(model)
    return LazyStageA(model) if model.config.num_stage_a_layers == 1 else DeepLazyStageA(model)


def _stage_b(model: GlimmerModel, forms: Forms) -> nn.Module:
    if not model.config.shape.traits.encodes_question:
        return MemoryStageB(model)
    shared = model.config.num_shared_layers
    done = shared - 1 if shared and forms.stage_a == "lazy" else shared
    return SelectingStageB(model, done) if done else ConditionedStageB(model)
