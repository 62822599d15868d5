"""Greedy decoding, one token a step for all rows of a batch, over a self-attention cache of fixed length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from runtime.backends import Array, Graph
from runtime.contract import ModelShape
from runtime.memory import pad_ids

__all__ = ["greedy_decode"]


def greedy_decode(
    graphs: Mapping[str, Graph],
    shape: ModelShape,
    encoder_hidden_states: Array,
    encoder_attention_mask: Array,
    prefixes: Sequence[Sequence[int]],
) -> list[list[int]]:
    """Answer tokens of each row, EOS left out, at most `max_new_tokens`.

    encoder_hidden_states (b, s, d_model) float32, encoder_attention_mask (b, s) int32; `prefixes` are the decoder
    input ids before the answer: the start token, and the question behind it where the architecture has it so.
    """
    fixed: dict[str, Array] = {"encoder_attention_mask": encoder_attention_mask}
    attended = {"encoder_hidden_states": encoder_hidden_states}
    fixed.update(graphs["cross_kv"].run(attended) if "cross_kv" in graphs else attended)
    step = np.array([len(prefix) - 1 for prefix in prefixes], np.int32)
    if shape.traits.prefixes_decoder:
        ids, _ = pad_ids(prefixes)
        outputs = graphs["decoder_prefill"].run({"decoder_input_ids": ids, "step": step, **fixed})
    else:
        outputs = _step(graphs, fixed, np.array(prefixes, np.int32), step, _empty_cache(shape, len(prefixes)))
    answers: list[list[int]] = [[] for _ in prefixes]
    running = set(range(len(prefixes)))
    for remaining in range(shape.max_new_tokens - 1, -1, -1):
        for row in sorted(running):
            token = int(outputs["next_token"][row, 0])
            if token == shape.eos_token_id:
                running.remove(row)
            else:
                answers[row].append(token)
        if not running or not remaining:
            return answers
        step = step + 1
        cache = {f"past_key_values{name.removeprefix('present')}": outputs[name] for name in _present(outputs)}
        outputs = _step(graphs, fixed, outputs["next_token"], step, cache)
    return answers


def _step(
    graphs: Mapping[str, Graph], fixed: Mapping[str, Array], tokens: Array, step: Array, cache: Mapping[str, Array]
) -> dict[str, Array]:
    return graphs["decoder_step"].run({"decoder_input_ids": tokens, "step": step, **fixed, **cache})


def _present(outputs: Mapping[str, Array]) -> list[str]:
    return [name for name in outputs if name.startswith("present.")]


def _empty_cache(shape: ModelShape, batch: int) -> dict[str, Array]:
    dims = (batch, shape.num_heads, shape.cache_length, shape.d_kv)
    return {
        f"past_key_values.{layer}.decoder.{part}": np.zeros(dims, np.float32)
        for layer in range(shape.num_decoder_layers)
        for part in ("key", "value")
    }
