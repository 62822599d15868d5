"""Greedy decoding, one token a step for all rows of a batch, over a self-attention cache of fixed length."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from runtime.backends import Array, Tensor
from runtime.contract import BundleError, ModelShape, NotFiniteError
from runtime.memory import pad_ids
from runtime.placement import Placement

__all__ = ["greedy_decode"]


def greedy_decode(
    place: Placement,
    shape: ModelShape,
    encoder_hidden_states: Tensor,
    encoder_attention_mask: Tensor,
    prefixes: Sequence[Sequence[int]],
    *,
    check_finite: bool = False,
) -> list[list[int]]:
    """Answer tokens of each row, EOS left out, at most `max_new_tokens`.

    encoder_hidden_states (b, s, d_model) float32, encoder_attention_mask (b, s) int32; `prefixes` are the decoder
    input ids before the answer: the start token, and the question behind it where the architecture has it so. Where a
    look at the tokens waits for a device, some steps may run after the last row's EOS; what they give is dropped.

    `check_finite` raises NotFiniteError where the logits of a row that still runs have NaN or infinity: those of every
    step on the host. A device hands out the logits of the first step and of each look, which is a fraction of the
    copies; NaN in the passages, the weights or the cache is in every step from then on.
    """
    fixed: dict[str, Tensor] = {"encoder_attention_mask": encoder_attention_mask}
    attended = {"encoder_hidden_states": encoder_hidden_states}
    fixed.update(place.run("cross_kv", attended) if "cross_kv" in place.graphs else attended)
    step = np.array([len(prefix) - 1 for prefix in prefixes], np.int32)
    if shape.traits.prefixes_decoder:
        ids, _ = pad_ids(prefixes, place.length(max(map(len, prefixes)), shape.decoder_prefix_length))
        outputs = place.run("decoder_prefill", {"decoder_input_ids": ids, "step": step, **fixed})
    else:
        empty = place.zeros(_cache_dims(shape, len(prefixes)))
        outputs = _step(place, fixed, np.array(prefixes, np.int32), step, empty)
    answers: list[list[int]] = [[] for _ in prefixes]
    running = set(range(len(prefixes)))
    fetched: list[tuple[Callable[[], Array], Callable[[], Array] | None]] = []
    most = shape.max_new_tokens - 1
    for remaining in range(most, -1, -1):
        looks = not remaining or len(fetched) + 1 == place.eos_interval
        checked = check_finite and (looks or remaining == most)
        fetched.append((place.fetch(outputs["next_token"]), place.fetch(outputs["logits"]) if checked else None))
        if looks:
            for tokens, logits in fetched:
                if logits is not None and running:
                    _check_logits(logits(), running)
                _append(tokens(), answers, running, shape)
            fetched.clear()
            if not running or not remaining:
                return answers
        step = step + 1
        cache = {f"past_key_values{name.removeprefix('present')}": outputs[name] for name in _present(outputs)}
        outputs = _step(place, fixed, outputs["next_token"], step, cache)
    return answers


def _append(tokens: Array, answers: list[list[int]], running: set[int], shape: ModelShape) -> None:
    """Add a step's tokens (b, 1) to the answers of the rows that still run; EOS ends a row.

    Raises BundleError for a number that the vocabulary has not, which no graph of ours gives.
    """
    for row in sorted(running):
        token = int(tokens[row, 0])
        if not 0 <= token < shape.vocab_size:
            raise BundleError(
                "graph decoder_step", expected=f"a token of {shape.vocab_size}", found=str(token),
                fix="export the bundle again",
            )
        if token == shape.eos_token_id:
            running.remove(row)
        else:
            answers[row].append(token)


def _check_logits(logits: Array, running: Collection[int]) -> None:
    """Raise NotFiniteError where the greatest logit (b, vocab_size) of a row that runs is NaN or infinite."""
    greatest = logits[sorted(running)].max(axis=1)  # NaN where there is one
    unusable = greatest[~np.isfinite(greatest)]
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
