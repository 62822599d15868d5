"""Between checkpoint and device: from an ONNX graph and samples to ranges, without torch. FP32 needs none of it."""
