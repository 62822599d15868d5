"""Greedy decoding, one token a step for all rows of a batch, over a self-attention cache of fixed length.

On a device that offers loops the steps between two looks at the tokens are queued together and count themselves; else
each is a run of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from glimmer_export.runtime.backends import Array, DeviceLoop, LoopIO, Tensor
from glimmer_export.runtime.contract import (
    CROSS_KV,
    DECODER_PREFILL,
    DECODER_STEP,
    LOG_PROBABILITY,
    BundleError,
    ModelShape,
    NotFiniteError,
)
from glimmer_export.runtime.passage_memory import pad_ids
from glimmer_export.runtime.placement import DevicePlacement, Placement

__all__ = ["OnStep", "Reading", "greedy_decode"]

STEP = DECODER_STEP
PREFILL = DECODER_PREFILL
TOKEN = "next_token"
LOGITS = "logits"
IDS = "decoder_input_ids"
COUNTER = "step"
ENCODER_STATES = "encoder_hidden_states"
ENCODER_MASK = "encoder_attention_mask"


@dataclass
class Reading:
    """What came of one question: the answer's tokens, EOS left out, and how likely the model held them, in nats.

    `log_probability` sums the log-probabilities of the tokens that the decoder chose: those of the answer, and EOS
    where it chose that; an answer that max_new_tokens cut off has none. The tokens that stand before an answer, the
    start token and MemoryFiD's question, were not chosen and do not count. None if the graphs do not tell.

    Where the architecture ranks, `scores` (k,) float32 are those of the question's own passages, and `selected` are
    the places, ascending, of those that were read; the decoder leaves both to the reader.
    """

    tokens: list[int] = field(default_factory=list)
    log_probability: float | None = None
    scores: Array | None = None
    selected: tuple[int, ...] | None = None


OnStep = Callable[[int, Reading, bool], None]
"""Told of a row, its reading so far, and whether it has ended."""


def greedy_decode(
    place: Placement,
    shape: ModelShape,
    encoder_hidden_states: Tensor,
    encoder_attention_mask: Tensor,
    prefixes: Sequence[Sequence[int]],
    *,
    check_finite: bool = False,
    on_step: OnStep | None = None,
) -> list[Reading]:
    """The answer of each row, of at most `max_new_tokens` tokens, EOS left out, with its log-probability.

    encoder_hidden_states (b, s, d_model) float32 or float16, encoder_attention_mask (b, s) int32; `prefixes` are the
    decoder input ids before the answer: the start token, and the question behind it if the architecture has it so.
    Where a look at the tokens waits for a device, some steps may run after the last row's EOS; what they give is
    dropped.

    `check_finite` raises NotFiniteError if the logits of a row that still runs have NaN or infinity: those of every
    step on the host. A device hands out the logits of the first step and of each look, which is a fraction of the
    copies; NaN in the passages, the weights or the cache is in every step from then on. The log-probability of a token
    is looked at in every step: it is a number where the greatest logit is one.

    `on_step` is called with a row, what there is of its answer, and whether that is all: at each of its tokens, and
    once at its end, which for most rows comes before that of the batch.
    """
    asked = Asked(shape, encoder_hidden_states, encoder_attention_mask, prefixes, logits=check_finite)
    answers: list[Reading] = []
    running = set(range(len(prefixes)))
    remaining = shape.max_new_tokens
    with decoder_steps(place, asked) as steps:
        while running and remaining:
            for step in steps.next(remaining):
                if not answers:
                    known = 0.0 if LOG_PROBABILITY in step else None
                    answers = [Reading(log_probability=known) for _ in prefixes]
                before = sorted(running)
                _take(step, answers, running, shape, check_finite=check_finite)
                remaining -= 1
                if on_step is not None:
                    for row in before:
                        on_step(row, answers[row], row not in running)
        if on_step is not None:
            for row in sorted(running):
                on_step(row, answers[row], True)
    return answers


def _take(
    step: Mapping[str, Array], answers: list[Reading], running: set[int], shape: ModelShape, *, check_finite: bool
) -> None:
    """Add a step's tokens (b, 1) to the answers of the rows that still run, and their log-probabilities (b, 1).

    EOS ends a row, and counts in its log-probability: what comes behind it was not chosen. Raises BundleError for a
    number that the vocabulary has not, which no graph of ours gives.
    """
    rows = sorted(running)
    if not rows:
        return
    tokens, log_probabilities = step["next_token"], step.get(LOG_PROBABILITY)
    if check_finite:
        if "logits" in step:
            logits = step["logits"]
            _check_finite(logits.reshape(len(logits), -1).max(axis=1)[rows])  # NaN if there is one
        if log_probabilities is not None:
            _check_finite(log_probabilities[rows, 0])
    for row in rows:
        answer, token = answers[row], int(tokens[row, 0])
        if not 0 <= token < shape.vocab_size:
            raise BundleError(
                "graph decoder_step", expected=f"a token below {shape.vocab_size}", found=str(token),
                fix="export the bundle again",
            )
        if log_probabilities is not None and answer.log_probability is not None:
            answer.log_probability += float(log_probabilities[row, 0])
        if token == shape.eos_token_id:
            running.remove(row)
        else:
            answer.tokens.append(token)


def _check_finite(values: Array) -> None:
    """Raise NotFiniteError if a row's greatest logit, or what was made of it, is NaN or infinite."""
    unusable = values[~np.isfinite(values)]
    if len(unusable):
        raise NotFiniteError(
            "decoder", expected="finite logits", found=f"{unusable[0]}",
            fix="compare the bundle with its checkpoint: `glimmer-export parity`; in FP16 or INT8, quantise it with "
            "another policy",
        )


@dataclass(frozen=True)
class Asked:
    """What is decoded: states (b, s, d_model) and mask (b, s) int32 of what was encoded, and the ids before answers.

    `logits` says whether the logits of the first step and of the last before each look are wanted.
    """

    shape: ModelShape
    encoder_hidden_states: Tensor
    encoder_attention_mask: Tensor
    prefixes: Sequence[Sequence[int]]
    logits: bool


class DecoderSteps(Protocol):
    """The steps of one batch."""

    def next(self, remaining: int) -> list[dict[str, Array]]:
        """Run steps up to the next look, `remaining` at most; of each its tokens (b, 1), and what else was asked for.

        That is their log-probabilities (b, 1), where the graphs tell, and logits (b, vocab_size) if they are wanted.
        """
        ...


@contextmanager
def decoder_steps(place: Placement, asked: Asked) -> Iterator[DecoderSteps]:
    """The steps of a batch where its graphs run; raises what running them raises."""
    if isinstance(place, DevicePlacement):
        opened = place.loop(STEP, step_loop(asked.shape), _step_dims(place, asked), asked.shape.max_new_tokens)
        if opened is not None:
            with opened as loop:
                yield _LoopedSteps(place, asked, loop)
            return
    yield _SingleSteps(place, asked)


def step_loop(shape: ModelShape) -> LoopIO:
    """What a step hands to the next."""
    carried = {IDS: TOKEN} | {name: _present(name) for name in _layers(shape, "decoder", ())}
    return LoopIO(carried, COUNTER, (TOKEN, LOG_PROBABILITY), (LOGITS,))


class _LoopedSteps:
    """Steps that a device counts and hands on by itself."""

    def __init__(self, place: DevicePlacement, asked: Asked, loop: DeviceLoop) -> None:
        self._loop, self._logits = loop, asked.logits
        self._first: dict[str, Callable[[], Array]] | None = None
        given: dict[str, Tensor] = {ENCODER_MASK: asked.encoder_attention_mask}
        zeros: list[str] = []
        start, caches = _last_positions(asked), list(_cache_dims(asked))
        if CROSS_KV in place.graphs:
            projected = {name: loop.inputs[name] for name in _cross_dims(asked)}
            place.run_into(CROSS_KV, {ENCODER_STATES: asked.encoder_hidden_states}, projected)
            attended: dict[str, Tensor] = dict(projected)
        else:
            attended = {ENCODER_STATES: asked.encoder_hidden_states}
            given.update(attended)
        if asked.shape.traits.prefixes_decoder:
            into = {TOKEN: loop.inputs[IDS]} | {_present(name): loop.inputs[name] for name in caches}
            inputs = {**_prefix(place, asked), **attended}
            self._first = _fetched(place, place.run_into(PREFILL, inputs, into), logits=asked.logits)
            start = start + 1
        else:
            given[IDS] = np.array(asked.prefixes, np.int32)
            zeros = caches
        loop.start(start, given, zeros)

    def next(self, remaining: int) -> list[dict[str, Array]]:
        """One look's steps are one launch; a prefix's own run comes before the first."""
        found, first = [], self._first
        count = min(self._loop.interval, remaining - (first is not None))
        looked = self._loop.run(count, seen=self._logits) if count else None
        if first is not None:
            found.append({name: wait() for name, wait in first.items()})
            self._first = None
        return found + looked() if looked is not None else found


class _SingleSteps:
    """Steps that are a run each, of graphs on the host or on a device."""

    def __init__(self, place: Placement, asked: Asked) -> None:
        self._place, self._asked = place, asked
        attended = {ENCODER_STATES: asked.encoder_hidden_states}
        fixed = place.run(CROSS_KV, attended) if CROSS_KV in place.graphs else attended
        self._fixed = {ENCODER_MASK: asked.encoder_attention_mask, **fixed}
        self._position = _last_positions(asked)
        self._outputs: Mapping[str, Tensor] | None = None

    def next(self, remaining: int) -> list[dict[str, Array]]:
        """Each step's copies are queued behind it, and all are waited for at the end: their buffers are used again."""
        count = min(self._place.device.eos_interval, remaining)
        fetched = []
        for index in range(count):
            looked = self._outputs is None or index == count - 1
            self._outputs = self._run(self._outputs)
            fetched.append(_fetched(self._place, self._outputs, logits=looked and self._asked.logits))
        return [{name: wait() for name, wait in step.items()} for step in fetched]

    def _run(self, before: Mapping[str, Tensor] | None) -> Mapping[str, Tensor]:
        caches = _cache_dims(self._asked)
        if before is None and self._asked.shape.traits.prefixes_decoder:
            return self._place.run(PREFILL, {**_prefix(self._place, self._asked), **self._fixed})
        if before is None:
            ids: Tensor = np.array(self._asked.prefixes, np.int32)
            past = self._place.zeros(STEP, caches)
        else:
            self._position = self._position + 1
            ids, past = before[TOKEN], {name: before[_present(name)] for name in caches}
        return self._place.run(STEP, {IDS: ids, COUNTER: self._position, **self._fixed, **past})


def _fetched(place: Placement, outputs: Mapping[str, Tensor], *, logits: bool) -> dict[str, Callable[[], Array]]:
    """What of a step's outputs comes to the host, on its way there."""
    wanted = (TOKEN, LOG_PROBABILITY, LOGITS) if logits else (TOKEN, LOG_PROBABILITY)
    return {name: place.fetch(outputs[name]) for name in wanted if name in outputs}


def _prefix(place: Placement, asked: Asked) -> dict[str, Tensor]:
    """The prefill's own inputs."""
    longest = max(map(len, asked.prefixes))
    ids, _ = pad_ids(asked.prefixes, place.length(longest, asked.shape.decoder_prefix_length))
    return {IDS: ids, COUNTER: _last_positions(asked), ENCODER_MASK: asked.encoder_attention_mask}


def _last_positions(asked: Asked) -> Array:
    """Where each row's last token before its answer stands, (b,) int32."""
    return np.array([len(prefix) - 1 for prefix in asked.prefixes], np.int32)


def _present(past: str) -> str:
    """The output that is a cache with a step's own token, by the input that it is for the next."""
    return f"present{past.removeprefix('past_key_values')}"


def _cache_dims(asked: Asked) -> dict[str, tuple[int, ...]]:
    shape = asked.shape
    return _layers(shape, "decoder", (len(asked.prefixes), shape.num_heads, shape.cache_length, shape.d_kv))


def _cross_dims(asked: Asked) -> dict[str, tuple[int, ...]]:
    shape, length = asked.shape, asked.encoder_hidden_states.shape[1]
    return _layers(shape, "encoder", (len(asked.prefixes), shape.num_heads, length, shape.d_kv))


def _layers(shape: ModelShape, side: str, dims: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {
        f"past_key_values.{layer}.{side}.{part}": dims
        for layer in range(shape.num_decoder_layers)
        for part in ("key", "value")
    }


def _step_dims(place: Placement, asked: Asked) -> dict[str, tuple[int, ...]]:
    """Of every input of a step."""
    batch = len(asked.prefixes)
    cached = CROSS_KV in place.graphs
    attended = _cross_dims(asked) if cached else {ENCODER_STATES: asked.encoder_hidden_states.shape}
    mask = asked.encoder_attention_mask.shape
    return {IDS: (batch, 1), COUNTER: (batch,), ENCODER_MASK: mask, **_cache_dims(asked), **attended}
