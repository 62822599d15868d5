"""A graph's inputs, cut into runs of one passage or one row without padding, so that padding enters no range."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from glimmer_export.calibration.spread import spread
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract import GraphIO

__all__ = ["UnpaddedRun", "unpadded_runs"]

Places = Mapping[str, NDArray[np.intp]]
"""By the name of a dimension, as the table of graph I/O has it: the indices to keep."""


@dataclass(frozen=True)
class UnpaddedRun:
    """Inputs of one run, and the places of the batch that they were taken from.

    `keep` names, by dimension, the indices that are no padding where it could not be cut off.
    """

    inputs: dict[str, Array]
    places: Places
    keep: Places


def unpadded_runs(
    io: GraphIO, inputs: Mapping[str, Array], limit: int, encoder_attention_mask: Array | None,
    *, fixed_keys: bool = False,
) -> Iterator[UnpaddedRun]:
    """The runs of one batch, at most `limit` of a row's passages among them, spread over their order.

    Positions count from the graph's own offsets, and every passage is encoded by itself, so what remains is computed
    as in the batch. `encoder_attention_mask` (b, s) is that of the decoder's graphs which do not take it themselves.
    With `fixed_keys` the place of a key tells in the decoder's cross-attention (a model's `cross_attention_bias`).
    """
    names = {tensor.name for tensor in io.inputs}
    if "memory_mask" in names:
        runs = _live(inputs, limit, selects="selected" in names)
    elif "step" in names:
        runs = _decoder(inputs, fixed_keys=fixed_keys)
    elif "encoder_hidden_states" in names:
        runs = _rows("encoder_tokens", encoder_attention_mask)
    elif inputs["attention_mask"].ndim == 2:
        runs = _texts(inputs["attention_mask"], limit)
    else:
        runs = _joined(inputs["attention_mask"], limit)
    for places, keep in runs:
        if all(len(kept) for kept in places.values()):
            taken = {tensor.name: _take(inputs[tensor.name], tensor.dims, places) for tensor in io.inputs}
            if "selected" in names:
                taken["selected"] = np.zeros((1, 1), np.int32)
            yield UnpaddedRun(taken, places, keep)


def _take(values: Array, dims: Sequence[int | str], places: Places) -> Array:
    for axis, dim in enumerate(dims):
        if isinstance(dim, str) and dim in places:
            values = values.take(places[dim], axis=axis)
    return values


Runs = Iterator[tuple[dict[str, NDArray[np.intp]], Places]]


def _live(inputs: Mapping[str, Array], limit: int, *, selects: bool) -> Runs:
    masks = inputs["memory_mask"]
    for row, passages in enumerate(masks):
        question_mask = inputs["question_mask"][row] if "question_mask" in inputs else np.zeros(0, np.int32)
        question = np.flatnonzero(question_mask)
        places = {"batch": np.array([row])} | ({"question": question} if len(question_mask) else {})
        candidates = inputs["selected"][row] if selects else range(len(passages))
        present = [int(place) for place in candidates if passages[place].any()]
        for place in spread(present, limit):
            passage = np.flatnonzero(passages[place])
            tokens = np.concatenate([question, len(question_mask) + passage])
            yield {**places, "passages": np.array([place]), "passage": passage, "tokens": tokens}, {}


def _texts(mask: Array, limit: int) -> Runs:
    for row in spread(range(len(mask)), limit):
        yield {"batch": np.array([row]), "tokens": np.flatnonzero(mask[row])}, {}


def _joined(mask: Array, limit: int) -> Runs:
    """Question and passage in one row: padding between them holds the passage in its place, and is left out after."""
    for row, passages in enumerate(mask):
        present = [place for place in range(len(passages)) if passages[place].any()]
        for place in spread(present, limit):
            kept = np.flatnonzero(passages[place])
            taken = {"batch": np.array([row]), "passages": np.array([place]), "tokens": np.arange(kept[-1] + 1)}
            # One passage a run: its tokens are all that the decoder would read.
            yield taken, {"tokens": kept, "encoder_tokens": kept}


def _decoder(inputs: Mapping[str, Array], *, fixed_keys: bool) -> Runs:
    """Positions of the cache behind the step are empty, and the graph works at any length of it.

    With `fixed_keys` the places of the encoder's first `step` tokens tell: padding among them stays in the run, to hold
    those behind in their places, and is left out after.
    """
    for row, step in enumerate(inputs["step"]):
        positions = np.arange(int(step) + 1)
        mask = inputs["encoder_attention_mask"][row] > 0
        held = np.arange(len(mask)) < (int(step) if fixed_keys and mask.any() else 0)
        kept = np.flatnonzero(mask | held)
        yield {
            "batch": np.array([row]), "prefix": positions, "cache_length": positions, "encoder_tokens": kept,
        }, {} if mask[kept].all() else {"encoder_tokens": np.flatnonzero(mask[kept])}


def _rows(dim: str, mask: Array | None) -> Runs:
    for row, kept in enumerate(() if mask is None else mask):
        yield {"batch": np.array([row]), dim: np.flatnonzero(kept)}, {}
