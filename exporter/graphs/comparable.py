"""Which values of a graph's outputs mean something: those at padding are left aside on both sides."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract import LOG_PROBABILITY

__all__ = ["comparable_outputs"]


def comparable_outputs(inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> dict[str, Array]:
    """The float outputs of one run, with 0 wherever the masks say that nothing is read.

    But for the log-probability of the next token: where a model is sure it is all but 0, and any error of it then as
    large as itself; the report has its difference by answers, in nats.

    Encoder states at padding, scores and states of absent passages (-inf, and whatever came of zeros), and what the
    decoder's cache has behind a row's own step, which is overwritten before it is attended to. Cross keys and values
    have no mask beside them, and are taken whole.
    """
    return {
        name: _masked(values, _mask(name, inputs, outputs))
        for name, values in outputs.items()
        if np.issubdtype(values.dtype, np.floating) and name != LOG_PROBABILITY
    }


def _mask(name: str, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> NDArray[np.bool_] | None:
    if name == "hidden_states":
        return inputs["attention_mask"] > 0
    if name == "encoder_hidden_states":
        return outputs["encoder_attention_mask"] > 0
    if name in ("scores", "rerank_states"):
        passages: NDArray[np.bool_] = inputs["memory_mask"] > 0
        present: NDArray[np.bool_] = np.any(passages, axis=-1)
        if name == "scores":
            return present
        question = inputs["question_mask"][:, None, :] > 0
        return np.concatenate([question & present[..., None], passages], axis=2)
    if name.startswith("present."):
        positions = np.arange(outputs[name].shape[2])
        written: NDArray[np.bool_] = positions <= inputs["step"][:, None]
        return written[:, None]
    return None


def _masked(values: Array, mask: NDArray[np.bool_] | None) -> Array:
    if mask is None:
        return np.ascontiguousarray(values)  # torch may hand out a view with its axes swapped
    return np.where(mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim)), values, values.dtype.type(0))
