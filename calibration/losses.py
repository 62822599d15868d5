"""How far what a session makes of questions is from what the reference made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from glimmer_export.calibration.observation import Observation
from glimmer_export.runtime.backends import Array

__all__ = ["Losses", "losses"]


@dataclass(frozen=True)
class Losses:
    """Shares, over the questions that both answered; None where the architecture does not rank.

    `score_noise`: variance over a question's passages of the scores' error, by that of the reference's scores.
    `logit_noise`: the same of the first token's logits over the vocabulary, on the questions for which the reference's
    passages were read, or on all where there is none: other passages are the scores' doing, and the few questions with
    such would outweigh all others. A shift of all alike changes no choice and counts for nothing. `top_m_overlap`:
    passages read that the reference read too. `answers_equal`: answers with the reference's tokens. An error that is
    not finite is an infinite loss.
    """

    score_noise: float | None
    logit_noise: float
    top_m_overlap: float | None
    answers_equal: float

    @property
    def loss(self) -> float:
        """What groups are ranked by: the two noises added."""
        return (self.score_noise or 0.0) + self.logit_noise


def losses(reference: Observation, found: Observation) -> Losses:
    """Losses of `found`, where it answered at least one of the questions that the reference answered."""
    of = {place: index for index, place in enumerate(found.places)}
    pairs = [(index, of[place]) for index, place in enumerate(reference.places) if place in of]
    ours, theirs = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    ranks = bool(reference.scores)
    same = [pair for pair in pairs if not ranks or reference.selected[pair[0]] == found.selected[pair[1]]] or pairs
    return Losses(
        score_noise=_noise(_take(reference.scores, ours), _take(found.scores, theirs)) if ranks else None,
        logit_noise=_noise(
            _take(reference.logits, [pair[0] for pair in same]), _take(found.logits, [pair[1] for pair in same])
        ),
        top_m_overlap=float(np.mean([
            len(reference.selected[our] & found.selected[their]) / len(reference.selected[our]) for our, their in pairs
        ])) if ranks else None,
        answers_equal=float(np.mean([reference.tokens[our] == found.tokens[their] for our, their in pairs])),
    )


def _take(arrays: Sequence[Array], places: Sequence[int]) -> list[Array]:
    return [arrays[place].astype(np.float64) for place in places]


def _noise(reference: Sequence[Array], found: Sequence[Array]) -> float:
    """Mean variance of the error, by the mean variance of the reference; each array is one question's."""
    if not all(np.isfinite(values).all() for values in found):
        return float("inf")
    error = float(np.mean([np.var(other - values) for values, other in zip(reference, found, strict=True)]))
    spread = float(np.mean([np.var(values) for values in reference]))
    if spread == 0:
        return 0.0 if error == 0 else float("inf")
    return error / spread
