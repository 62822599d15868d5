"""Which values of a graph's outputs mean something: those at padding are left aside on both sides."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract import LOG_PROBABILITY
from glimmer_export.runtime.contract.stages import mask_of_output

__all__ = ["comparable_outputs"]


def comparable_outputs(inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> dict[str, Array]:
    """The float outputs of one run, with 0 wherever the masks say that nothing is read.

    But for the log-probability of the next token: if a model is sure it is all but 0, and any error of it then as
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
    mask = mask_of_output(name)
    if mask is None:
        return None
    beside = outputs[mask] if mask in outputs else inputs[mask]
    if mask == "step":
        written: NDArray[np.bool_] = np.arange(outputs[name].shape[2]) <= beside[:, None]
        return written[:, None]
    if mask == "memory_mask" and "selected" in inputs:  # stage A of a cascade, which gathers what it ranks
        beside = np.take_along_axis(beside, inputs["selected"][..., None], axis=1)
    read: NDArray[np.bool_] = beside > 0
    if mask != "memory_mask":
        return read
    present: NDArray[np.bool_] = np.any(read, axis=-1)
    if name == "scores":
        return present
    question = inputs["question_mask"][:, None, :] > 0
    return np.concatenate([question & present[..., None], read], axis=2)


def _masked(values: Array, mask: NDArray[np.bool_] | None) -> Array:
    if mask is None:
        return np.ascontiguousarray(values)  # torch may hand out a view with its axes swapped
    return np.where(mask.reshape(mask.shape + (1,) * (values.ndim - mask.ndim)), values, values.dtype.type(0))
