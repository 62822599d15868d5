"""TensorRT and TensorRT-RTX, without torch: engines of a bundle on one GPU, with tensors that stay there."""

from glimmer_export.runtime.backends.tensorrt.backend import KINDS, TensorRTBackend

__all__ = ["KINDS", "TensorRTBackend"]
