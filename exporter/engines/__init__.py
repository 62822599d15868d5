"""ONNX graphs -> engines of NVIDIA's TensorRT or TensorRT-RTX, kept in the bundle."""

from exporter.engines.batch_bounds import BatchBound
from exporter.engines.build import EngineBuild, EnginePlan, build_engines
from exporter.engines.inventory import bundle_engines, stale
from exporter.engines.measured_form import choose_form_here

__all__ = ["BatchBound", "EngineBuild", "EnginePlan", "build_engines", "bundle_engines", "choose_form_here", "stale"]
