"""Greedy decoding, one token a step for all rows of a batch, over a self-attention cache of fixed length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from runtime.backends import Array, Tensor
from runtime.contract import LOG_PROBABILITY, BundleError, ModelShape, NotFiniteError
from runtime.memory import pad_ids
from runtime.placement import Placement

__all__ = ["Decoded", "greedy_decode"]


@dataclass
class Decoded:
    """What was decoded for one row: the answer's tokens, EOS left out, and how likely the model held them, in nats.

    `log_probability` sums the log-probabilities of the tokens that the decoder chose: those of the answer, and EOS
    where it chose that; an answer that max_new_tokens cut off has none. The tokens that stand before an answer, the
    start token and MemoryFiD's question, were not chosen and do not count. None where the graphs do not tell.
    """

    tokens: list[int] = field(default_factory=list)
    log_probability: float | None = None


@dataclass(frozen=True)
class _Step:
    """What one step gave, as it is brought from where the graphs run; logits where they are to be looked at."""

    tokens: Callable[[], Array]
    log_probabilities: Callable[[], Array] | None
    logits: Callable[[], Array] | None


def greedy_decode(
    place: Placement,
    shape: ModelShape,
    encoder_hidden_states: Tensor,
    encoder_attention_mask: Tensor,
    prefixes: Sequence[Sequence[int]],
    *,
    check_finite: bool = False,
) -> list[Decoded]:
    """The answer of each row, of at most `max_new_tokens` tokens, EOS left out, with its log-probability.

    encoder_hidden_states (b, s, d_model) float32 or float16, encoder_attention_mask (b, s) int32; `prefixes` are the
    decoder input ids before the answer: the start token, and the question behind it where the architecture has it so.
    Where a look at the tokens waits for a device, some steps may run after the last row's EOS; what they give is
    dropped.

    `check_finite` raises NotFiniteError where the logits of a row that still runs have NaN or infinity: those of every
    step on the host. A device hands out the logits of the first step and of each look, which is a fraction of the
    copies; NaN in the passages, the weights or the cache is in every step from then on. The log-probability of a token
    is looked at in every step: it is a number where the greatest logit is one.
    """
    fixed: dict[str, Tensor] = {"encoder_attention_mask": encoder_attention_mask}
    attended = {"encoder_hidden_states": encoder_hidden_states}
    fixed.update(place.run("cross_kv", attended) if "cross_kv" in place.graphs else attended)
    step = np.array([len(prefix) - 1 for prefix in prefixes], np.int32)
    if shape.traits.prefixes_decoder:
        ids, _ = pad_ids(prefixes, place.length(max(map(len, prefixes)), shape.decoder_prefix_length))
        outputs = place.run("decoder_prefill", {"decoder_input_ids": ids, "step": step, **fixed})
    else:
        empty = place.zeros("decoder_step", _cache_dims(shape, len(prefixes)))
        outputs = _step(place, fixed, np.array(prefixes, np.int32), step, empty)
    answers = [Decoded(log_probability=0.0 if LOG_PROBABILITY in outputs else None) for _ in prefixes]
    running = set(range(len(prefixes)))
    fetched: list[_Step] = []
    most = shape.max_new_tokens - 1
    for remaining in range(most, -1, -1):
        looks = not remaining or len(fetched) + 1 == place.eos_interval
        checked = check_finite and (looks or remaining == most)
        fetched.append(
            _Step(
                place.fetch(outputs["next_token"]),
                place.fetch(outputs[LOG_PROBABILITY]) if LOG_PROBABILITY in outputs else None,
                place.fetch(outputs["logits"]) if checked else None,
            )
        )
        if looks:
            for done in fetched:
                _take(done, answers, running, shape, check_finite=check_finite)
            fetched.clear()
            if not running or not remaining:
                return answers
        step = step + 1
        cache = {f"past_key_values{name.removeprefix('present')}": outputs[name] for name in _present(outputs)}
        outputs = _step(place, fixed, outputs["next_token"], step, cache)
    return answers


def _take(step: _Step, answers: list[Decoded], running: set[int], shape: ModelShape, *, check_finite: bool) -> None:
    """Add a step's tokens (b, 1) to the answers of the rows that still run, and their log-probabilities (b, 1).

    EOS ends a row, and counts in its log-probability: what comes behind it was not chosen. Raises BundleError for a
    number that the vocabulary has not, which no graph of ours gives.
    """
    # Each copy is waited for, also of what nobody reads: its buffer is used again.
    tokens = step.tokens()
    log_probabilities = None if step.log_probabilities is None else step.log_probabilities()
    rows = sorted(running)
    if not rows:
        return
    if check_finite:
        if step.logits is not None:
            _check_finite(step.logits()[rows].max(axis=1))  # NaN where there is one
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
    """Raise NotFiniteError where a row's greatest logit, or what was made of it, is NaN or infinite."""
    unusable = values[~np.isfinite(values)]
    if len(unusable):
        raise NotFiniteError(
            "decoder", expected="finite logits", found=f"{unusable[0]}",
            fix="compare the bundle with its checkpoint: `glimmer-export parity`; in FP16 or INT8, quantise it with "
            "another policy",
        )


def _step(
    place: Placement, fixed: Mapping[str, Tensor], tokens: Tensor, step: Array, cache: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    return place.run("decoder_step", {"decoder_input_ids": tokens, "step": step, **fixed, **cache})


def _present(outputs: Mapping[str, Tensor]) -> list[str]:
    return [name for name in outputs if name.startswith("present.")]


def _cache_dims(shape: ModelShape, batch: int) -> dict[str, tuple[int, ...]]:
    dims = (batch, shape.num_heads, shape.cache_length, shape.d_kv)
    return {
        f"past_key_values.{layer}.decoder.{part}": dims
        for layer in range(shape.num_decoder_layers)
        for part in ("key", "value")
    }
