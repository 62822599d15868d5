"""Teacher forcing: how likely a side holds the reference's answer, token by token, whatever it would say itself.

Answers move only where a choice tips. The log-probability of the reference's answer moves with every error on the way
to it, so that what a part costs shows before it costs an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.parity.memory_source import MemorySource
from glimmer_export.exporter.parity.rows import Row
from glimmer_export.exporter.parity.sides import DECODER, GraphSide, Reply, Side
from glimmer_export.runtime.backends import Array, Graph
from glimmer_export.runtime.contract import ModelShape
from glimmer_export.runtime.text import TextEncoder

__all__ = ["Forced", "ForcedSide", "forced_answers"]


@dataclass(frozen=True)
class Forced:
    """What a side makes of a question whose answer is given.

    `log_prob` is that of the answer, EOS included where it ends before max_new_tokens, in nats; -inf where the logits
    are not finite. `agrees`: its own greedy answer is the same. `scores` (k,) and `selected` as in a Reply.
    """

    log_prob: float
    agrees: bool
    scores: NDArray[np.float32] | None
    selected: tuple[int, ...] | None


class ForcedSide:
    """Graphs that are made to say given answers."""

    def __init__(
        self, graphs: Mapping[str, Graph], shape: ModelShape, text: TextEncoder, source: MemorySource,
        num_selected: int | None,
    ) -> None:
        self._teacher = _Teacher(shape)
        taught = {name: _Taught(graphs[name], self._teacher) for name in DECODER if name in graphs}
        self._side = GraphSide({**graphs, **taught}, shape, text, source, num_selected)

    def force(self, rows: Sequence[Row], answers: Sequence[tuple[int, ...]]) -> list[Forced]:
        """One batch of questions that have passages, and the tokens of an answer to each, without EOS."""
        self._teacher.begin(answers)
        replies: list[Reply] = self._side.answer(rows)
        return [
            Forced(float(log_prob), bool(agrees), reply.scores, reply.selected)
            for reply, log_prob, agrees in zip(replies, *self._teacher.heard(), strict=True)
        ]


def forced_answers(
    taught: ForcedSide, free: Side, rows: Sequence[Row], references: Sequence[Reply], *, batch_size: int,
    advance: Callable[[int], None],
) -> tuple[list[Forced], list[Reply]]:
    """The reference's answers forced on a side, and what it says `free`: asked only where that is another answer."""
    forced: list[Forced] = []
    replies: list[Reply] = []
    for start in range(0, len(rows), batch_size):
        batch, given = rows[start : start + batch_size], references[start : start + batch_size]
        found = taught.force(batch, [reply.tokens for reply in given])
        others = iter(free.answer([row for row, one in zip(batch, found, strict=True) if not one.agrees]))
        forced += found
        replies += [
            replace(reply, scores=one.scores, selected=one.selected) if one.agrees else next(others)
            for reply, one in zip(given, found, strict=True)
        ]
        advance(len(batch))
    return forced, replies


class _Teacher:
    """The tokens of a batch's answers, EOS last where there is room for it, and how the decoder took them."""

    def __init__(self, shape: ModelShape) -> None:
        self._shape = shape

    def begin(self, answers: Sequence[tuple[int, ...]]) -> None:
        eos, most = self._shape.eos_token_id, self._shape.max_new_tokens
        self._answers = [(*answer, eos)[:most] for answer in answers]
        self._log_probs = np.zeros(len(answers), np.float64)
        self._agrees = np.ones(len(answers), bool)
        self._step = 0

    def heard(self) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        return np.nan_to_num(self._log_probs, nan=-np.inf, neginf=-np.inf), self._agrees

    def say(self, outputs: Mapping[str, Array]) -> dict[str, Array]:
        """The outputs of one run, with the answers' tokens (b, 1) in the place of the decoder's own."""
        eos = self._shape.eos_token_id
        speaking = np.array([self._step < len(answer) for answer in self._answers])
        pairs = zip(self._answers, speaking, strict=True)
        tokens = np.array([answer[self._step] if is_speaking else eos for answer, is_speaking in pairs])
        logits = outputs["logits"].astype(np.float64)
        with np.errstate(all="ignore"):
            shifted = logits - logits.max(axis=1, keepdims=True)
            chosen = shifted[np.arange(len(tokens)), tokens] - np.log(np.exp(shifted).sum(axis=1))
        self._log_probs[speaking] += chosen[speaking]
        self._agrees[speaking] &= (outputs["next_token"][:, 0] == tokens)[speaking]
        self._step += 1
        return {**outputs, "next_token": tokens[:, None].astype(np.int32)}


class _Taught:
    """A decoder graph that says what its teacher says."""

    def __init__(self, graph: Graph, teacher: _Teacher) -> None:
        self._graph, self._teacher = graph, teacher

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._teacher.say(self._graph.run(inputs))
