"""The form of cross-attention that takes less by reckoning: bytes, arithmetic and kernels of one answer."""

from __future__ import annotations

from glimmer_export.exporter.config.targets import Target, TensorRTTarget
from glimmer_export.exporter.engines.profiles import dim_sizes
from glimmer_export.runtime.contract import (
    CROSS_ATTENTION_FORMS,
    DECODER_STEP,
    ModelShape,
)

__all__ = ["KERNELS", "cross_attention_ms", "reckoned_form"]

KERNELS = {"absorbed": 7, "cached": 3}
"""Of the cross-attention of one layer and step at batch 1, as TensorRT-RTX 1.7 lists them: projections, scores, softmax
and context, or one fused kernel between two projections (docs/measurements/kernels.md)."""
ONCE_KERNELS = {"absorbed": 0, "cached": 8}
"""Of one layer before the first step: the projections to keys and values, at base and large size."""
FP16_BYTES = 2


def reckoned_form(shape: ModelShape, answer_tokens: int, target: Target) -> str:
    """The form that costs less for an answer of so many tokens, the model's most at most (docs/design.md, section 2).

    On a CPU by multiply-adds: an encoder token and layer, absorbed cross-attention saves `2 d_model inner` of them
    before the first position and adds `2 (heads d_model - inner)` at each. A GPU's step waits for memory and for its
    kernels to start, so there these are counted.
    """
    positions = min(answer_tokens, shape.max_new_tokens) + shape.decoder_prefix_length - 1
    if target.tensorrt is not None:
        gpu = target.tensorrt
        return min(CROSS_ATTENTION_FORMS, key=lambda form: cross_attention_ms(form, shape, positions, target, gpu))
    inner = shape.num_heads * shape.d_kv
    saved = shape.d_model * inner * target.absorbed_efficiency
    return "absorbed" if positions * (shape.num_heads * shape.d_model - inner) <= saved else "cached"


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
