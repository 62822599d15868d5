"""Backends: each runs one graph on one kind of device."""

from runtime.backends.contract import Array, Backend, Graph
from runtime.backends.onnxruntime_cpu import OnnxRuntimeBackend

__all__ = ["Array", "Backend", "Graph", "OnnxRuntimeBackend"]
