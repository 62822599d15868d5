"""Greedy decoding, one token a step for all rows of a batch, over a self-attention cache of fixed length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from runtime.backends import Array, Tensor
from runtime.contract import ModelShape
from runtime.memory import pad_ids
from runtime.placement import Placement

__all__ = ["greedy_decode"]


def greedy_decode(
    place: Placement,
    shape: ModelShape,
    encoder_hidden_states: Tensor,
    encoder_attention_mask: Tensor,
    prefixes: Sequence[Sequence[int]],
) -> list[list[int]]:
    """Answer tokens of each row, EOS left out, at most `max_new_tokens`.

    encoder_hidden_states (b, s, d_model) float32, encoder_attention_mask (b, s) int32; `prefixes` are the decoder
    input ids before the answer: the start token, and the question behind it where the architecture has it so. Where a
    look at the tokens waits for a device, some steps may run after the last row's EOS; what they give is dropped.
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
    fetched: list[Callable[[], Array]] = []
    for remaining in range(shape.max_new_tokens - 1, -1, -1):
        fetched.append(place.fetch(outputs["next_token"]))
        if not remaining or len(fetched) == place.eos_interval:
            for tokens in fetched:
                _append(tokens(), answers, running, shape.eos_token_id)
            fetched.clear()
            if not running or not remaining:
                return answers
        step = step + 1
        cache = {f"past_key_values{name.removeprefix('present')}": outputs[name] for name in _present(outputs)}
        outputs = _step(place, fixed, outputs["next_token"], step, cache)
    return answers


def _append(tokens: Array, answers: list[list[int]], running: set[int], eos_token_id: int) -> None:
    """Add a step's tokens (b, 1) to the answers of the rows that still run; EOS ends a row."""
    for row in sorted(running):
        token = int(tokens[row, 0])
        if token == eos_token_id:
            running.remove(row)
        else:
            answers[row].append(token)


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
