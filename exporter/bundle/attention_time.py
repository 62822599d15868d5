"""What a GPU needs for the cross-attention of one answer in either form: bytes, arithmetic and kernels."""

from __future__ import annotations

from glimmer_export.exporter.config.targets import Target, TensorRTTarget
from glimmer_export.exporter.engines.profiles import dim_sizes
from glimmer_export.runtime.contract import (
    DECODER_STEP,
    ModelShape,
)

__all__ = ["KERNELS", "cross_attention_ms"]

KERNELS = {"absorbed": 7, "cached": 3}
"""Of the cross-attention of one layer and step at batch 1, as TensorRT-RTX 1.7 lists them: projections, scores, softmax
and context, or one fused kernel between two projections (docs/measurements/kernels.md)."""
ONCE_KERNELS = {"absorbed": 0, "cached": 3}
"""Of one layer before the first step: the projections to keys and values."""
FP16_BYTES = 2


def cross_attention_ms(form: str, shape: ModelShape, positions: int, target: Target, gpu: TensorRTTarget) -> float:
    """Milliseconds of a machine's cross-attention in FP16, all layers, over an answer of so many positions.

    The time of arithmetic at the peak rate or of moving every operand once, whichever is longer, and that of starting
    the kernels: an estimate to compare two forms by, no forecast. No operand is taken to stay in a cache. Questions are
    as many as the target's first profile is tuned for, and as long as the model takes.
    """
    sizes = dim_sizes(shape, gpu.profiles[0], DECODER_STEP)
    batch, tokens = sizes["batch"].opt, sizes["encoder_tokens"].opt
    width, inner = shape.d_model, shape.num_heads * shape.d_kv
    projection = width * inner

    def milliseconds(macs: int, elements: int, kernels: int) -> float:
        arithmetic = 2 * macs / (target.peak_tops.fp16 * 1e9)
        bandwidth = FP16_BYTES * elements / (target.memory_bandwidth_gb_per_s * 1e6)
        return max(arithmetic, bandwidth) + kernels * gpu.kernel_us / 1e3

    if form == "absorbed":
        # Four projections; scores and context by the states themselves, read for each.
        macs = batch * (4 * projection + 2 * tokens * shape.num_heads * width)
        step = milliseconds(macs, 4 * projection + 2 * batch * tokens * width, KERNELS[form])
        once = 0.0
    else:
        macs = batch * (2 * projection + 2 * tokens * inner)
        step = milliseconds(macs, 2 * projection + 2 * batch * tokens * inner, KERNELS[form])
        written = 2 * projection + batch * tokens * (width + 2 * inner)
        once = milliseconds(2 * batch * tokens * projection, written, ONCE_KERNELS[form])
    return shape.num_decoder_layers * (once + positions * step)
