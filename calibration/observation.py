"""What a session makes of questions, as losses are measured on it: scores, selection, first logits, answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from glimmer_export.runtime import Session
from glimmer_export.runtime.backends import Array, Graph
from glimmer_export.runtime.candidates import Given

__all__ = ["Asked", "Observation", "observe"]


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
            name: _Recorded(graph, self) if name in ("decoder_prefill", "decoder_step") else graph
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
