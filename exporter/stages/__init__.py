"""The torch modules: the whole model, and the stages it is cut into, one per graph."""

from glimmer_export.exporter.stages.codecs import CodecDecoder, SelectedMemory
from glimmer_export.exporter.stages.cut import applies_scale, stage_from_model
from glimmer_export.exporter.stages.greedy import GreedyAnswers, greedy_answers
from glimmer_export.exporter.stages.load import model_from_checkpoint, model_from_weights
from glimmer_export.exporter.stages.model import Encoded, GlimmerModel, Masked

__all__ = [
    "CodecDecoder", "Encoded", "GlimmerModel", "GreedyAnswers", "Masked", "SelectedMemory", "applies_scale",
    "greedy_answers", "model_from_checkpoint", "model_from_weights", "stage_from_model",
]  # fmt: skip

