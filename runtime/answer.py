"""What a session returns, made of what came of a question."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from glimmer_export.runtime.candidates import Row
from glimmer_export.runtime.contract import GlimmerError
from glimmer_export.runtime.decode import Reading
from glimmer_export.runtime.store import Passage

__all__ = ["Answer", "PassageTruncatedWarning", "RankedPassage", "answer_of", "ranking_of"]


class PassageTruncatedWarning(UserWarning):
    """A passage given as a text is longer than the model reads, and its end was not read."""


@dataclass(frozen=True)
class RankedPassage:
    """One of the k passages, in retrieval order.

    `retrieval_score` is BM25, higher is better, None if the passage was given; `score` is the model's own, None
    if the architecture does not rank; `read` says whether the decoder read it. `truncated`: it was given as a text,
    or is read in one text with the question, and was cut to passage_length; what a store has cut was counted when it
    was built.
    """

    passage: Passage
    retrieval_score: float | None
    score: float | None
    read: bool
    truncated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The passage's own fields and these, as JSON has them; a score that is no number is None."""
        passage = self.passage
        return {
            "id": passage.id,
            "title": passage.title,
            "text": passage.text,
            "wikipedia_id": passage.wikipedia_id,
            "retrieval_score": _finite(self.retrieval_score),
            "score": _finite(self.score),
            "read": self.read,
            "truncated": self.truncated,
        }


@dataclass(frozen=True)
class Answer:
    """The answer to one question.

    `answer` is None if nothing was retrieved, or where `error` says why the question could not be taken.
    `milliseconds` holds wall time by stage; questions answered in one batch share it.

    `log_probability`, in nats and at most 0, tells how sure the model was of the answer: the sum of the
    log-probabilities of the tokens that it chose, one after the other, from all that it read. Those are `token_ids`
    and, where the answer ended by itself, the EOS that ended it; an answer that max_new_tokens cut off has no EOS to
    count, so that it is the log-probability of its beginning. None without an answer, and where the bundle's graphs do
    not tell: those that were exported before bundles of schema 6.

    `decoder_runs` are those of the decoder until the answer had ended: one a token, EOS included, or fewer where drafts
    were verified.
    """

    question: str
    answer: str | None
    token_ids: tuple[int, ...] = ()
    passages: tuple[RankedPassage, ...] = ()
    milliseconds: dict[str, float] = field(default_factory=dict)
    error: GlimmerError | None = None
    log_probability: float | None = None
    decoder_runs: int = 0

    @property
    def scores(self) -> tuple[float | None, ...]:
        """The model's scores of the k passages, in retrieval order."""
        return tuple(passage.score for passage in self.passages)

    @property
    def selected(self) -> tuple[int, ...]:
        """Positions, among the k, of the passages that were read."""
        return tuple(position for position, passage in enumerate(self.passages) if passage.read)

    @property
    def read_passages(self) -> tuple[RankedPassage, ...]:
        """The m passages that the decoder read, in its order; none if there was no answer."""
        return tuple(passage for passage in self.passages if passage.read)

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON has it: one key a field, whatever came of the question, and no NaN.

        `passages` are in retrieval order, each with its `rank` from 1; `error` is None, or the error's class as `type`
        and its four parts.
        """
        return {
            "question": self.question,
            "answer": self.answer,
            "token_ids": list(self.token_ids),
            "log_probability": _finite(self.log_probability),
            "decoder_runs": self.decoder_runs,
            "error": None if self.error is None else _error_to_dict(self.error),
            "passages": [{"rank": rank, **item.to_dict()} for rank, item in enumerate(self.passages, start=1)],
            "milliseconds": {stage: _finite(value) for stage, value in self.milliseconds.items()},
        }


def answer_of(question: str, text: str, row: Row, reading: Reading) -> Answer:
    """The answer that the tokens of `reading` say as a text, with the candidates of `row` as they were ranked."""
    passages = tuple(
        RankedPassage(
            passage=candidate.passage,
            retrieval_score=candidate.retrieval_score,
            score=None if reading.scores is None else float(reading.scores[place]),
            read=reading.selected is None or place in reading.selected,
            truncated=candidate.truncated,
        )
        for place, candidate in enumerate(row.candidates)
    )
    return Answer(
        question, text, tuple(reading.tokens), passages, log_probability=reading.log_probability,
        decoder_runs=reading.runs,
    )


def ranking_of(question: str, row: Row, scores: Sequence[float]) -> Answer:
    """No answer, with the candidates of `row` and their scores, none of which was read."""
    passages = tuple(
        RankedPassage(candidate.passage, candidate.retrieval_score, score, read=False, truncated=candidate.truncated)
        for candidate, score in zip(row.candidates, scores, strict=True)
    )
    return Answer(question, None, passages=passages)


def _error_to_dict(error: GlimmerError) -> dict[str, str]:
    return {
        "type": type(error).__name__,
        "subject": error.subject,
        "expected": error.expected,
        "found": error.found,
        "fix": error.fix,
    }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
