"""Attribution: the reference with one part of the candidate's in its place, and what that part costs alone.

Parts that both sides share are left out. Answers move only if a choice tips, so what a part costs is measured by
teacher forcing: the log-probability of the reference's answer, token by token, moves with every error on the way to it,
long before an answer does. An SNR of stage B's states that falls from 46 to 30 dB may move none.

Graphs of different precision can be exchanged one by one, since what crosses their boundary is in the checkpoint's
units, in FP32 or in FP16, to which a graph casts what it reads, or memory in the store's codec; only their algebraic
forms must be the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from glimmer_export.exporter.parity.figures import Interval, answers_equal, em_of, score_snr_db, top_m_overlap
from glimmer_export.exporter.parity.graph_sets import GraphSet, Shared
from glimmer_export.exporter.parity.inputs import MemorySource, Row, codec_name
from glimmer_export.exporter.parity.sides import GraphSide, Reply, Side
from glimmer_export.runtime.backends import Array, Graph
from glimmer_export.runtime.contract import MEMORY_ENCODER, STAGES, TOKEN_STAGES, ModelShape
from glimmer_export.runtime.text import TextEncoder

__all__ = ["Forced", "ForcedSide", "Mix", "PartEffect", "costliest_part", "effect_of", "forced_answers", "mixes"]


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
        taught = {name: _Taught(graphs[name], self._teacher) for name in TOKEN_STAGES if name in graphs}
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
    """The reference's answers forced on a side, and what it says `free`: asked only if that is another answer."""
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
    """The tokens of a batch's answers, EOS last if there is room for it, and how the decoder took them."""

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
        logits = outputs["logits"].reshape(len(tokens), -1).astype(np.float64)
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




@dataclass(frozen=True)
class PartEffect:
    """What one part of the candidate's does to the reference's answers; `em_delta` from -1 to 1, with its interval.

    Under teacher forcing, in nats a question: `log_prob_delta` is by how much the log-probability of the reference's
    answer changes, the mean; `log_prob_error` the root of the mean of the squares of these changes, which do not
    cancel. `score_snr_db` is the variance of the reference's scores over a question's passages by that of their error,
    in dB, infinite without any; None if nothing is ranked.
    """

    em_delta: float | None
    em_delta_interval: Interval | None
    answers_equal: float | None
    top_m_overlap: float | None
    log_prob_delta: float | None
    log_prob_error: float | None
    score_snr_db: float | None


@dataclass(frozen=True)
class Mix:
    """Graphs and memory of which one part is the candidate's."""

    graphs: dict[str, Graph]
    source: MemorySource


def mixes(
    shape: ModelShape,
    reference: GraphSet,
    candidate: GraphSet,
    source: MemorySource,
    *,
    store: MemorySource | None,
    encoded: MemorySource,
    shared: Shared,
) -> dict[str, Mix]:
    """The parts that the architecture has and the sides do not share, by name, each swapped alone.

    `source` is the reference's memory; `store` the candidate's where it reads another, `encoded` what the candidate's
    memory encoder gives of the same passages, through the reference's codec. Raises OptionError if one side has no
    graphs for memory in the other's codec.
    """
    traits = shape.traits
    own, others = (side.of(codec_name(source.codec)) for side in (reference, candidate))
    swapped: dict[str, list[str]] = {}
    parts: dict[str, Mix] = {}
    if traits.has_memory and store is not None:
        parts["store_codec"] = Mix(reference.of(codec_name(store.codec)), store)
    if traits.has_memory and not shared.all_of([MEMORY_ENCODER]):
        parts["memory_encoder_store"] = Mix(own, encoded)
    # Memory comes from the source, so that the memory encoder encodes nothing but questions, if it runs at all.
    for name, stage in STAGES.items():
        if name in others and stage.runs(shape, shape.max_new_tokens):
            swapped.setdefault(stage.part, []).append(name)
    parts |= {
        part: Mix({**own, **{name: others[name] for name in names}}, source)
        for part, names in swapped.items()
        if not shared.all_of(names)
    }
    return parts


def costliest_part(effects: Mapping[str, PartEffect]) -> str | None:
    """The part that moves the reference's answers most, whether they tip or not; None if none moves them."""
    errors = {part: effect.log_prob_error or 0.0 for part, effect in effects.items()}
    worst = max(errors, key=errors.__getitem__, default=None)
    return worst if worst is not None and errors[worst] > 0 else None


def effect_of(
    rows: Sequence[Row], references: Sequence[Reply], mixed: Sequence[Reply], before: Sequence[Forced],
    after: Sequence[Forced],
) -> PartEffect:
    """What a mix answers against what the reference answers; `before` and `after`: the reference's answers forced."""
    em = em_of(rows, references, mixed)
    with np.errstate(invalid="ignore"):
        changes = np.array([other.log_prob - one.log_prob for one, other in zip(before, after, strict=True)])
    changes[np.isnan(changes)] = 0  # both are -inf
    some = len(changes) > 0
    return PartEffect(
        em.delta, em.interval, answers_equal(references, mixed), top_m_overlap(references, mixed),
        log_prob_delta=float(changes.mean()) if some else None,
        log_prob_error=float(np.sqrt(np.square(changes).mean())) if some else None,
        score_snr_db=score_snr_db(before, after),
    )
