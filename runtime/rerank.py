"""Selection between the stages: the m best of the k scored passages, or as many of them as hold most of the scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract import LIVE_STAGE_A, NotFiniteError

__all__ = ["cascade_scores", "check_scores", "select_by_mass", "select_top_m", "take_selected"]


def check_scores(scores: Array, num_passages: Sequence[int], stage: str = LIVE_STAGE_A) -> None:
    """Raise NotFiniteError, naming the stage, if one of the passages that are present has no finite score.

    Scores (b, k) float32 of rows that have `num_passages` passages each: sorting would put NaN in some place or other.
    """
    for row, count in enumerate(num_passages):
        unusable = np.flatnonzero(~np.isfinite(scores[row, :count]))
        if len(unusable):
            raise NotFiniteError(
                f"graph {stage}", expected="a finite score for every passage",
                found=f"{scores[row, unusable[0]]} for passage {unusable[0] + 1} of {count}",
                fix="check the store with `glimmer-export memory verify`, and compare the bundle with its checkpoint: "
                "`glimmer-export parity`",
            )


def select_top_m(scores: Array, num_selected: int) -> Array:
    """The `num_selected` best passages of each row (GLIMMER paper, section 3.2).

    Scores (b, k) float32, -inf if a passage is absent -> selected (b, min(num_selected, k)) int32, in retrieval
    order, since the decoder reads a set. Among equal scores the earlier retrieved wins; absent passages come last.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :num_selected]
    return np.sort(best, axis=1).astype(np.int32)


def cascade_scores(shortlist: Array, places: Array, scores: Array) -> Array:
    """Scores of all k passages by a cascade, (b, k) float32.

    The passages at `places` (b, c) int32 have their `scores` (b, c) by stage A. The others keep their order below
    these: by as much as `shortlist` (b, k) has them below the last that it kept. -inf in it means an absent passage.
    """
    rows = np.arange(len(scores))[:, None]
    kept = shortlist[rows, places]
    present = ~np.isneginf(kept)
    least, last = (values.min(axis=1, where=present, initial=np.inf, keepdims=True) for values in (scores, kept))
    combined: Array = np.where(np.isneginf(shortlist), shortlist, least + (shortlist - last))
    combined[rows, places] = scores
    return combined


def select_by_mass(scores: Array, num_selected: int, mass: float) -> tuple[Array, Array]:
    """As `select_top_m`, but of each row no more than it takes for `mass` of softmax(scores) over its k passages.

    The scores are trained towards log p(answer | one passage alone) (GLIMMER paper, section 3.3), so that their softmax
    says how likely each passage is to be the one that answers. Scores (b, k) float32, 0 < `mass` <= 1 -> selected
    (b, m) int32 and which of these are read (b, m) bool, m being what the row that reads most does; the best of a row
    always is. A row with a score that is no number has no shares, and reads `num_selected`.
    """
    best = np.argsort(-scores, axis=1, kind="stable")[:, :num_selected]
    with np.errstate(invalid="ignore"):
        shares = np.exp((scores - scores.max(axis=1, keepdims=True)).astype(np.float64))
        shares = np.take_along_axis(shares, best, axis=1) / shares.sum(axis=1, keepdims=True)
        read = ~(np.cumsum(shares, axis=1) - shares >= mass)  # those before it hold less than the mass
    most = int(read.sum(axis=1).max())
    order = np.argsort(best[:, :most], axis=1)
    return np.take_along_axis(best, order, axis=1).astype(np.int32), np.take_along_axis(read, order, axis=1)


def take_selected(
    tensors: Mapping[str, Array], selected: Array, read: Array | None = None
) -> dict[str, Array]:
    """Tensors of the k passages (b, k, ...), `memory_mask` (b, k, n_p) among them -> of the selected (b, m) alone.

    Of these, the passages that `read` (b, m) bool leaves out are masked, as absent ones are; None leaves out none.
    Token axes, which all end with the passage's own n_p tokens, end where the longest of these does: what padding only
    the others needed costs stage B nothing.
    """
    rows = np.arange(len(selected))[:, None]
    mask = tensors["memory_mask"]
    lengths = mask[rows, selected].sum(axis=2)
    longest = int((lengths if read is None else lengths * read).max())
    padding = min(mask.shape[2] - 1, mask.shape[2] - longest)
    taken = {
        name: values[rows, selected, : values.shape[2] - padding] if values.ndim > 2 else values[rows, selected]
        for name, values in tensors.items()
    }
    if read is not None:
        taken["memory_mask"] *= read[..., None]
    return taken
