"""The torch modules: the whole model, and the stages it is cut into, one per graph."""

from exporter.stages.model import GlimmerModel

__all__ = ["GlimmerModel"]
