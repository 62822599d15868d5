"""Backends: each runs one graph on one kind of device."""

from glimmer_export.runtime.backends.contract import (
    Array,
    Backend,
    BackendKind,
    BackendOptions,
    CachingDevice,
    Device,
    DeviceGraph,
    DeviceLoop,
    DeviceTensor,
    Graph,
    LoopingGraph,
    LoopIO,
    Spec,
    Tensor,
    TypedGraph,
)
from glimmer_export.runtime.backends.onnxruntime_cpu import OnnxRuntimeBackend

__all__ = [
    "Array",
    "Backend",
    "BackendKind",
    "BackendOptions",
    "CachingDevice",
    "Device",
    "DeviceGraph",
    "DeviceLoop",
    "DeviceTensor",
    "Graph",
    "LoopIO",
    "LoopingGraph",
    "OnnxRuntimeBackend",
    "Spec",
    "Tensor",
    "TypedGraph",
]
