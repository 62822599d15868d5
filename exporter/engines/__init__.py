"""ONNX graphs -> engines of NVIDIA's TensorRT or TensorRT-RTX, kept in the bundle."""

from glimmer_export.exporter.engines.build import EngineBuild, EnginePlan, build_engines
from glimmer_export.exporter.engines.cross_attention import choose_form_here
from glimmer_export.exporter.engines.folder import bundle_engines, stale
from glimmer_export.exporter.engines.profiles import BatchBound

__all__ = ["BatchBound", "EngineBuild", "EnginePlan", "build_engines", "bundle_engines", "choose_form_here", "stale"]
