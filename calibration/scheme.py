"""What a target's INT8 looks like: which integers activations and weights take."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ARM", "TENSORRT", "X86", "X86_VNNI", "Scheme"]


@dataclass(frozen=True)
class Scheme:
    """INT8 of one kind of device.

    `unsigned`: activations are uint8 with a zero point, else int8 with zero point 0. `weight_levels`: the largest
    magnitude of a weight's code. `half_scales`: every scale is a float16 number, as strongly typed FP16 needs it.
    `packed_tables`: a table's codes stand four in an INT32.
    """

    unsigned: bool
    weight_levels: int
    half_scales: bool
    packed_tables: bool = False


X86_VNNI = Scheme(unsigned=True, weight_levels=127, half_scales=False)
"""ONNX Runtime multiplies uint8 by int8 with one instruction (measured 2.5 times FP32; signed by signed: 1.0)."""
X86 = Scheme(unsigned=True, weight_levels=63, half_scales=False)
"""Without VNNI two products of uint8 and int8 are added in 16 bits and saturate; 7-bit weights cannot."""
ARM = Scheme(unsigned=False, weight_levels=127, half_scales=False)
TENSORRT = Scheme(unsigned=False, weight_levels=127, half_scales=True, packed_tables=True)
"""TensorRT takes symmetric INT8 alone, zero point 0."""
