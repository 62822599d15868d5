"""Greedy decoding, a step at a time for all rows of a batch, over a self-attention cache of fixed length.

A step gives a token, or verifies a draft of some. On a device that offers loops the steps between two looks at the
tokens are queued together and count themselves; else each is a run of its own, as each is that has a draft.
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
from glimmer_export.runtime.drafts import Drafts, kept_of
from glimmer_export.runtime.passage_memory import pad_ids
from glimmer_export.runtime.placement import DevicePlacement, Placement

__all__ = ["Asked", "OnStep", "Reading", "SingleSteps", "decoder_steps", "greedy_decode"]

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
    start token and MemoryFiD's question, were not chosen and do not count, nor do those of a draft that were not kept.
    None if the graphs do not tell. `runs` are those of the decoder's graphs until the answer had ended.

    Where the architecture ranks, `scores` (k,) float32 are those of the question's own passages, and `selected` are
    the places, ascending, of those that were read; the decoder leaves both to the reader.
    """

    tokens: list[int] = field(default_factory=list)
    log_probability: float | None = None
    scores: Array | None = None
    selected: tuple[int, ...] | None = None
    runs: int = 0


OnStep = Callable[[int, Reading, bool], None]
"""Told of a row, its reading so far, and whether it has ended."""


def greedy_decode(
    place: Placement,
    shape: ModelShape,
    encoder_hidden_states: Tensor,
    encoder_attention_mask: Tensor,
    prefixes: Sequence[Sequence[int]],
    *,
    drafts: Drafts | None = None,
    check_finite: bool = False,
    on_step: OnStep | None = None,
) -> list[Reading]:
    """The answer of each row, of at most `max_new_tokens` tokens, EOS left out, with its log-probability.

    encoder_hidden_states (b, s, d_model) float32 or float16, encoder_attention_mask (b, s) int32; `prefixes` are the
    decoder input ids before the answer: the start token, and the question behind it if the architecture has it so.
    Where a look at the tokens waits for a device, some steps may run after the last row's EOS; what they give is
    dropped.

    With `drafts`, for graphs that take them, a run verifies a row's draft and keeps as many tokens as the decoder would
    have chosen one by one; the tokens come to the host after each run.

    `check_finite` raises NotFiniteError if the logits of a row that still runs have NaN or infinity: those of every
    step on the host. A device hands out the logits of the first step and of each look, which is a fraction of the
    copies; NaN in the passages, the weights or the cache is in every step from then on. The log-probability of a token
    is looked at in every step: it is a number where the greatest logit is one.

    `on_step` is called with a row, what there is of its answer, and whether that is all: at each of its tokens, and
    once at its end, which for most rows comes before that of the batch.
    """
    asked = Asked(shape, encoder_hidden_states, encoder_attention_mask, prefixes, logits=check_finite)
    answers = _Answers(len(prefixes), shape, check_finite=check_finite, on_step=on_step)
    if drafts is not None and drafts.tokens:
        _decode_drafted(SingleSteps(place, asked), drafts, answers, asked)
        return answers.readings
    remaining = shape.max_new_tokens
    with decoder_steps(place, asked) as steps:
        while answers.running:
            for step in steps.next(remaining):
                answers.take(step)
                remaining -= 1
    return answers.readings


def _decode_drafted(steps: SingleSteps, drafts: Drafts, answers: _Answers, asked: Asked) -> None:
    """A run for the first token, and then runs of a token and its draft, or of a token where no row has a draft."""
    shape, readings = asked.shape, answers.readings
    (first,) = steps.next(1)
    answers.take(first)
    while answers.running:
        guesses: list[list[int]] = [[] for _ in readings]
        for row in answers.running:
            tokens = readings[row].tokens
            most = min(drafts.tokens, shape.max_new_tokens - len(tokens) - 1)
            guesses[row] = drafts.sources[row].draft(tokens, most)
        length = 1 + (drafts.tokens if any(guesses) else 0)
        ids = np.full((len(readings), length), shape.pad_token_id, np.int32)
        for row in answers.running:
            row_ids = [readings[row].tokens[-1], *guesses[row]]
            ids[row, : len(row_ids)] = row_ids
        # A row that has ended stays where it is: what it writes there is read by nobody.
        lengths = [len(reading.tokens) for reading in readings]
        answers.take(steps.verify(ids, _last_positions(asked) + np.array(lengths, np.int32)), guesses)


class _Answers:
    """The readings of a batch as its decoder's runs come in, and the rows that still run."""

    def __init__(self, rows: int, shape: ModelShape, *, check_finite: bool, on_step: OnStep | None) -> None:
        self.readings = [Reading() for _ in range(rows)]
        self.running = set(range(rows))
        self._shape, self._checks, self._on_step = shape, check_finite, on_step

    def take(self, run: Mapping[str, Array], drafts: Sequence[Sequence[int]] | None = None) -> None:
        """Add what a run chose, tokens (b, t), to the rows that still run, and its log-probability.

        Of the t positions the first counts, and those behind each token of a row's draft that was chosen too. EOS ends
        a row, and counts in its log-probability: what comes behind it was not chosen. Raises BundleError for a number
        that the vocabulary has not, which no graph of ours gives.
        """
        tokens, sure = run[TOKEN], run.get(LOG_PROBABILITY)
        kept = {row: kept_of(drafts[row], tokens[row].tolist()) if drafts else 1 for row in sorted(self.running)}
        if self._checks:
            self._check(run, kept)
        for row, count in kept.items():
            reading = self.readings[row]
            reading.runs += 1
            if sure is not None:
                before = reading.log_probability or 0.0
                reading.log_probability = before + sum(map(float, sure[row, :count]))
            for token in tokens[row, :count].tolist():
                self._add(row, reading, token)

    def _add(self, row: int, reading: Reading, token: int) -> None:
        if not 0 <= token < self._shape.vocab_size:
            raise BundleError(
                "graph decoder_step", expected=f"a token below {self._shape.vocab_size}", found=str(token),
                fix="export the bundle again",
            )
        if token != self._shape.eos_token_id:
            reading.tokens.append(token)
            self._tell(row, reading, ended=False)
            if len(reading.tokens) < self._shape.max_new_tokens:
                return
        self.running.remove(row)
        self._tell(row, reading, ended=True)

    def _tell(self, row: int, reading: Reading, *, ended: bool) -> None:
        if self._on_step is not None:
            self._on_step(row, reading, ended)

    def _check(self, run: Mapping[str, Array], kept: Mapping[int, int]) -> None:
        """The positions that count of the rows that still run."""
        for row, count in kept.items():
            if (logits := run.get(LOGITS)) is not None:
                of_row = logits[row].reshape(-1, logits.shape[-1])
                _check_finite(of_row[:count].max(axis=1))  # NaN if there is one
            if (sure := run.get(LOG_PROBABILITY)) is not None:
                _check_finite(sure[row, :count])


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
    yield SingleSteps(place, asked)


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


class SingleSteps:
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

    def verify(self, ids: Array, positions: Array) -> dict[str, Array]:
        """Run a step of tokens and their drafts, ids (b, t) from positions (b,) on, behind the last step's caches."""
        assert self._outputs is not None
        past = {name: self._outputs[_present(name)] for name in _cache_dims(self._asked)}
        self._outputs = self._place.run(STEP, {IDS: ids, COUNTER: positions, **self._fixed, **past})
        logits = self._asked.logits and not isinstance(self._place, DevicePlacement)
        return {name: wait() for name, wait in _fetched(self._place, self._outputs, logits=logits).items()}

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
