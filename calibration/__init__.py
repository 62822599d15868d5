"""Between checkpoint and device: from an ONNX graph and samples to ranges, without torch. FP32 needs none of it."""

__all__ = ["COSTS"]

COSTS = ("work", "weights", "larger")
"""What leaving products in float costs: time, size, or whichever is the larger share."""
