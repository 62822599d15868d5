"""The torch modules: the whole model, and the stages it is cut into, one per graph."""

from exporter.stages.codec import CodecDecoder, SelectedMemory
from exporter.stages.cut import applies_scale, stage_from_model
from exporter.stages.model import GlimmerModel

__all__ = ["CodecDecoder", "GlimmerModel", "SelectedMemory", "applies_scale", "stage_from_model"]
