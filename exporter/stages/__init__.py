"""The torch modules: the whole model, and the stages it is cut into, one per graph."""

from glimmer_export.exporter.stages.codec import CodecDecoder, SelectedMemory
from glimmer_export.exporter.stages.cut import applies_scale, stage_from_model
from glimmer_export.exporter.stages.model import GlimmerModel

__all__ = ["CodecDecoder", "GlimmerModel", "SelectedMemory", "applies_scale", "stage_from_model"]
