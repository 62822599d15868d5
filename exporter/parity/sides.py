"""The two ways in which a side answers: graphs through the runtime's reader, or the padded torch model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.parity.inputs import MemorySource, Row
from glimmer_export.exporter.parity.reference import TorchReference
from glimmer_export.runtime import candidates
from glimmer_export.runtime.backends import Array, Graph
from glimmer_export.runtime.clock import StageClock
from glimmer_export.runtime.contract import TOKEN_STAGES, ModelShape
from glimmer_export.runtime.reader import Reader
from glimmer_export.runtime.store import MemoryStore
from glimmer_export.runtime.text import TextEncoder

__all__ = ["GraphSide", "Reply", "Side", "TorchSide"]



@dataclass(frozen=True)
class Reply:
    """One side's answer to one question.

    Tokens without EOS and their text; scores (k,) and the selected places, ascending, where the architecture ranks;
    by step, EOS's included, how far the best logit stood above the next, if the side was asked for it; and the
    answer's log-probability, as a session has it.
    """

    tokens: tuple[int, ...] = ()
    text: str = ""
    scores: NDArray[np.float32] | None = None
    selected: tuple[int, ...] | None = None
    margins: tuple[float, ...] = ()
    log_probability: float | None = None


class Side(Protocol):
    """Answers batches of questions."""

    def answer(self, rows: Sequence[Row]) -> list[Reply]:
        """One reply a row; an empty one if the row has no passage."""
        ...


class GraphSide:
    """Graphs of a bundle, or of several, or torch stages in their place."""

    def __init__(
        self,
        graphs: Mapping[str, Graph],
        shape: ModelShape,
        text: TextEncoder,
        source: MemorySource,
        num_selected: int | None,
        *,
        margins: bool = False,
        mass: float | None = None,
        draft_tokens: int = 0,
    ) -> None:
        self._text, self._source, self._num_selected, self._mass = text, source, num_selected, mass
        self._steps: list[NDArray[np.float32]] = []
        if margins:
            noted = {name: _Margins(graphs[name], self._steps) for name in TOKEN_STAGES if name in graphs}
            graphs = {**graphs, **noted}
        # A source gives what the reader asks a store for, and each passage has a number, so no text is encoded there.
        self._reader = Reader(
            graphs, shape, text, cast("MemoryStore", source), source.codec, draft_tokens=draft_tokens
        )

    def answer(self, rows: Sequence[Row]) -> list[Reply]:
        """Answer in one batch; raises what the graphs and the memory's source raise."""
        taken = [row for row in rows if row.candidates]
        replies = {id(row): Reply() for row in rows}
        if taken:
            self._steps.clear()
            self._source.prepare([number for row in taken for number in row.numbers])
            asked = [candidates.Row(place, row.ids, row.candidates) for place, row in enumerate(taken)]
            readings = self._reader.read(asked, self._num_selected, StageClock(), mass=self._mass)
            for place, (row, reading) in enumerate(zip(taken, readings, strict=True)):
                replies[id(row)] = Reply(
                    tokens=tuple(reading.tokens),
                    text=self._text.decode(reading.tokens),
                    scores=reading.scores,
                    selected=reading.selected,
                    margins=tuple(float(step[place]) for step in self._steps),
                    log_probability=reading.log_probability,
                )
        return [replies[id(row)] for row in rows]


class TorchSide:
    """The torch model by itself, one question at a time: nothing of it is the graphs' or the runtime's.

    `source` is the memory it reads; None if it reads its own, exact.
    """

    def __init__(
        self, reference: TorchReference, shape: ModelShape, text: TextEncoder, tokens: Callable[[int], list[int]],
        source: MemorySource | None, num_selected: int | None,
    ) -> None:
        self._reference, self._shape, self._text = reference, shape, text
        self._tokens, self._source, self._num_selected = tokens, source, num_selected

    def answer(self, rows: Sequence[Row]) -> list[Reply]:
        """Answer each; raises what the memory's source raises."""
        return [self._answer(row) if row.candidates else Reply() for row in rows]

    def _answer(self, row: Row) -> Reply:
        passages = [
            self._tokens(number) if candidate.ids is None else list(candidate.ids)
            for number, candidate in zip(row.numbers, row.candidates, strict=True)
        ]
        memory = self._memory(row, passages) if self._shape.traits.has_memory else None
        found = self._reference.answer(row.ids, passages, memory, self._num_selected)
        selected = None if found.selected is None else tuple(found.selected)
        return Reply(
            tuple(found.tokens), self._text.decode(found.tokens), found.scores, selected, tuple(found.margins),
            found.log_probability,
        )

    def _memory(self, row: Row, passages: list[list[int]]) -> list[NDArray[np.float32]]:
        if self._source is None:
            return self._reference.memory(passages)
        codec = self._source.codec
        assert codec is not None
        self._source.prepare(row.numbers)
        return [codec.decode(self._source.memory(number).tensors) for number in row.numbers]


class _Margins:
    """A decoder graph that notes, of every run, how far each row's best logit stands above the next."""

    def __init__(self, graph: Graph, steps: list[NDArray[np.float32]]) -> None:
        self._graph, self._steps = graph, steps

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        outputs = self._graph.run(inputs)
        logits = outputs["logits"]
        two = np.partition(logits.reshape(len(logits), -1), -2, axis=1)[:, -2:]
        self._steps.append(two[:, 1] - two[:, 0])
        return outputs
