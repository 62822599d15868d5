"""What a session makes of questions, and how far that is from what the reference made of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import Array, Graph
from glimmer_export.runtime.candidates import Given
from glimmer_export.runtime.contract import TOKEN_STAGES

__all__ = ["Asked", "Losses", "Observation", "losses", "observe"]


@dataclass(frozen=True)
class Asked:
    """A question, and the passages to read for it; None retrieves."""

    question: str
    passages: Sequence[Given] | None


@dataclass
class Observation:
    """One entry a question that was answered, in order; `places` says which of those asked.

    `scores` (k,) and `selected`, positions of the m read, where the architecture ranks; `logits` (vocab_size,) of the
    answer's first token; `tokens` of the answer; `passages` the k, as they can be given again.
    """

    places: list[int] = field(default_factory=list)
    scores: list[Array] = field(default_factory=list)
    selected: list[frozenset[int]] = field(default_factory=list)
    logits: list[Array] = field(default_factory=list)
    tokens: list[tuple[int, ...]] = field(default_factory=list)
    passages: list[list[Given]] = field(default_factory=list)


def observe(
    session: Session, asked: Sequence[Asked], *, batch_size: int, advance: Callable[[int], None] = lambda _: None
) -> Observation:
    """Ask in batches; what cannot be answered is left out. `advance` is told how many questions came to be done."""
    found, first = Observation(), _FirstLogits()
    graphs = first.wrap(session.graphs)
    recording = Session(session.bundle, session.store, graphs, session.text, session.codec)
    for start in range(0, len(asked), batch_size):
        batch = asked[start : start + batch_size]
        first.forget()
        answers = recording.answer_many([item.question for item in batch], passages=[item.passages for item in batch])
        answered = [place for place, answer in enumerate(answers) if answer.answer is not None]
        for row, place in enumerate(answered):
            answer = answers[place]
            found.places.append(start + place)
            found.logits.append(first.taken()[row])
            found.tokens.append(answer.token_ids)
            found.passages.append(
                [item.passage if item.passage.id is None else item.passage.id for item in answer.passages]
            )
            if session.bundle.manifest.model.traits.selects:
                found.scores.append(np.array(answer.scores, np.float32))
                found.selected.append(frozenset(answer.selected))
        advance(len(batch))
    return found


class _FirstLogits:
    """Keeps the logits (b, vocab_size) of the first decoder run of a batch."""

    def __init__(self) -> None:
        self.logits: Array | None = None

    def forget(self) -> None:
        self.logits = None

    def taken(self) -> Array:
        assert self.logits is not None
        return self.logits

    def wrap(self, graphs: Mapping[str, Graph]) -> dict[str, Graph]:
        return {
            name: _Recorded(graph, self) if name in TOKEN_STAGES else graph
            for name, graph in graphs.items()
        }


class _Recorded:
    def __init__(self, graph: Graph, first: _FirstLogits) -> None:
        self._graph, self._first = graph, first

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = self._graph.run(inputs)
        if self._first.logits is None:
            logits = outputs["logits"]
            self._first.logits = logits.reshape(len(logits), -1, logits.shape[-1])[:, -1]
        return outputs


@dataclass(frozen=True)
class Losses:
    """Shares, over the questions that both answered; None if the architecture does not rank.

    `score_noise`: variance over a question's passages of the scores' error, by that of the reference's scores.
    `logit_noise`: the same of the first token's logits over the vocabulary, on the questions for which the reference's
    passages were read, or on all if there is none: other passages are the scores' doing, and the few questions with
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
