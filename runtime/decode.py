"""Greedy decoding, one token a step for all rows of a batch, over a self-attention cache of fixed length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from glimmer_export.runtime.backends import Array, Tensor
from glimmer_export.runtime.contract import LOG_PROBABILITY, BundleError, ModelShape, NotFiniteError
from glimmer_export.runtime.decoder_steps import Asked, decoder_steps
from glimmer_export.runtime.placement import Placement

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
    asked = Asked(shape, encoder_hidden_states, encoder_attention_mask, prefixes, logits=check_finite)
    answers: list[Decoded] = []
    running = set(range(len(prefixes)))
    remaining = shape.max_new_tokens
    with decoder_steps(place, asked) as steps:
        while running and remaining:
            for step in steps.next(remaining):
                if not answers:
                    known = 0.0 if LOG_PROBABILITY in step else None
                    answers = [Decoded(log_probability=known) for _ in prefixes]
                _take(step, answers, running, shape, check_finite=check_finite)
                remaining -= 1
    return answers


def _take(
    step: Mapping[str, Array], answers: list[Decoded], running: set[int], shape: ModelShape, *, check_finite: bool
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
            _check_finite(step["logits"].max(axis=1)[rows])  # NaN where there is one
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
