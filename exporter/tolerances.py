"""How far a result may stand from its reference; each figure with its reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["CODEC_SNR_DROP_DB", "MIN_INT8_COSINE", "MIN_SNR_DB", "TOLERANCES", "Tolerance", "max_abs_error"]


@dataclass(frozen=True)
class Tolerance:
    """Largest allowed error: `atol + rtol * |reference|`, of every element or, as `limit` has it, of the greatest."""

    atol: float
    rtol: float
    reason: str

    def limit(self, reference: NDArray[np.floating]) -> float:
        """The bound for a reference array; infinities in it do not count."""
        finite = np.abs(reference[np.isfinite(reference)])
        return self.atol + self.rtol * float(finite.max(initial=0.0))


TOLERANCES = {
    "fp32": Tolerance(
        1e-5, 1e-4, "float32 sums in another order: about 1e-7 a sum, amplified by tens of layers and by softmax"
    ),
    "fp16": Tolerance(
        1e-4, 8e-3, "11 significant bits at each operator: 2**-11 of it a rounding, of which layers add up to some ten"
    ),
    "fp16_product": Tolerance(
        6e-8, 2.0**-10, "one rounding to 11 bits of the same sum, in another order: a unit, or FP16's smallest step"
    ),
    "fp16_function": Tolerance(
        6e-8, 2.0**-9, "Softmax and Gelu rounded once here, and at every step of their formulas by the ONNX reference"
    ),
    "t5_encoder_states": Tolerance(
        1e-5, 1e-5, "the same float32 products in another order; a final norm keeps the states near 1"
    ),
    "t5_residual_stream": Tolerance(
        1e-5, 1e-5, "as t5_encoder_states, without the norm: the relative part follows the stream's growth by layers"
    ),
    "t5_scores": Tolerance(1e-5, 1e-5, "one dot product with a state of the residual stream"),
    "t5_logits": Tolerance(
        1e-4, 1e-5, "a sum of d_model products of states, each off by what t5_encoder_states allows"
    ),
    "log_probability": Tolerance(
        1e-3, 1e-9, "nats of an answer from the same memory: each token's moves by what its logits do, and they are few"
    ),
    "cross_attention": Tolerance(
        1e-5, 1e-9, "float32 beside float64, one layer from the same inputs: absolute, however large the table is"
    ),
    "dense_score": Tolerance(
        2e-6, 1e-4, "float32 products, rounded to five digits so that ties are ties; an encoder's vectors within fp32"
    ),
    "embedding": Tolerance(1e-5, 1e-7, "vectors of length 1, float32 products in batches of another shape"),
    "training_processes": Tolerance(
        2e-5, 1e-4, "gradients added up in another order at each of 20 steps: 1e-7 of a sum, which grows as the next "
        "step's gradient follows from the weights"
    ),
    "fp16_codec": Tolerance(
        1e-5, 2.0**-11, "11 significant bits: half a unit of the last; and float32 in a batch of another shape"
    ),
}
"""By what is compared: graphs with torch in float32, by the graph's arithmetic precision (`fp32`, `fp16`); operators
rounded to FP16 with the ONNX reference evaluator's, of the largest element (`fp16_product`, `fp16_function`);
an answer's log-probability with torch's log_softmax (`log_probability`); our torch model with Hugging Face's
(`t5_...`), a layer of it with FiD's formula (`cross_attention`); vectors and their
scores (`embedding`, `dense_score`); memory with what a store gives back of it (`..._codec`); weights that two processes
have trained with one's (`training_processes`)."""

MIN_SNR_DB = {"fp16": 45.0, "int8": 25.0, "int8-fp16": 20.0}
"""Least signal-to-noise ratio of a quantised graph's outputs beside FP32's on the same inputs, in dB, by precision.

FP16 rounds 2**-11 of a value, 72 dB below it, and INT8 2**-8 of the largest one, some 40 dB below the mean. Layers add
up, and attention amplifies what tips a choice. Seen on random weights, which choose without a margin, over all
architectures and forms: from 50 to 69 dB for FP16, from 28 to 51 for INT8, and with both from 22 (the logits of
MemoryFiD's decoder on a whole question; 28 elsewhere) to 50."""

MIN_INT8_COSINE = 0.9
"""Least cosine of a text's vectors by a sentence encoder in INT8 and by torch: below it neighbours change places."""

CODEC_SNR_DROP_DB = 3.0
"""How far a store codec's signal-to-noise ratio may lie below that of the passages it was fitted to, or an append's
below the store's, before it is warned of, in dB: twice the energy of the error.

Fitted to 1,024 passages of the demo, 23,500 tokens, scales by channel keep others as well to 0.01 dB, and codebooks
keep them 1.9 to 2.4 dB less well: they know their sample by heart. Four channels that grow by 30 cost 10 to 20 dB."""


def max_abs_error(found: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    """Largest absolute difference; equal infinities agree, any other non-finite difference is infinite."""
    if found.shape != reference.shape:
        return float("inf")
    with np.errstate(invalid="ignore"):
        difference = np.abs(found.astype(np.float64) - reference.astype(np.float64))
    difference[found == reference] = 0
    return float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0))
