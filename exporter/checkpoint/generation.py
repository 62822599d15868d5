"""How a Hugging Face model is decoded: an answer's special tokens and length, and whether it asks for greedy decoding.

Before transformers 4.26 such settings stood in `config.json`, since then in `generation_config.json`; both count.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from glimmer_export.runtime.contract import CheckpointError, is_there
from glimmer_export.runtime.contract.manifest import MAX_ANSWER
from glimmer_export.runtime.contract.records import read_json_value

__all__ = ["SETTINGS", "read_generation", "single_token"]

FILE, CONFIG = "generation_config.json", "config.json"
TOKENS = ("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id")


def _equals(number: int) -> Callable[[Any], bool]:
    """Whether a value is this number, as an integer or not; a boolean is no number."""
    return lambda value: _is_number(value) and value == number


def _at_most(limit: int) -> Callable[[Any], bool]:
    return lambda value: _is_number(value) and value <= limit


def _between(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf


def _is_false(value: Any) -> bool:
    return value is False


def _is_token(value: Any) -> bool:
    return _between(0, 1 << 31)(single_token(value))


def _anything(_value: Any) -> bool:
    return True


GREEDY: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(TOKENS, _is_token),
    "max_new_tokens": _between(1, MAX_ANSWER),
    "max_length": _between(2, MAX_ANSWER + 1),
    # Another search than the greedy one.
    "do_sample": _is_false,
    "num_beams": _equals(1),
    "num_beam_groups": _equals(1),
    "num_return_sequences": _equals(1),
    "penalty_alpha": _equals(0),
    # The likeliest token is made another one. A length counts the start token, so that 1 asks for nothing.
    "min_length": _at_most(1),
    "min_new_tokens": _at_most(0),
    "repetition_penalty": _equals(1),
    "encoder_repetition_penalty": _equals(1),
    "no_repeat_ngram_size": _equals(0),
    "encoder_no_repeat_ngram_size": _equals(0),
    "diversity_penalty": _equals(0),
    "guidance_scale": _equals(1),
    "remove_invalid_values": _is_false,
    "token_healing": _is_false,
    "use_mtp": _is_false,
    # They order beams, or draw among tokens: with one beam and no sampling nothing reads them.
    **dict.fromkeys(
        ("early_stopping", "length_penalty", "temperature", "top_k", "top_p", "min_p", "top_h", "typical_p",
         "epsilon_cutoff", "eta_cutoff"), _anything,
    ),
    # The same tokens by another road: a cache, a compiler, a draft that is verified, log-probabilities for logits.
    **dict.fromkeys(
        ("use_cache", "cache_implementation", "max_cache_len", "return_legacy_cache", "prefill_chunk_size",
         "low_memory", "compile_config", "disable_compile", "continuous_batching_config", "renormalize_logits",
         "is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "assistant_confidence_threshold",
         "assistant_lookbehind", "target_lookbehind", "max_matching_ngram_size", "prompt_lookup_num_tokens"),
        _anything,
    ),
    # What is returned beside the tokens, and if the file comes from.
    **dict.fromkeys(
        ("output_attentions", "output_hidden_states", "output_scores", "output_logits", "return_dict_in_generate",
         "transformers_version", "_from_model_config", "_commit_hash"), _anything,
    ),
}  # fmt: skip
"""What a setting may be where answers are decoded greedily. Null, an empty list and an empty mapping ask for nothing,
whatever the setting; any other value of one that is not here is refused, as what it asks for is not known."""

OTHERS = (
    "max_time", "stop_strings", "bad_words_ids", "force_words_ids", "constraints", "forced_bos_token_id",
    "forced_eos_token_id", "forced_decoder_ids", "exponential_decay_length_penalty", "suppress_tokens",
    "begin_suppress_tokens", "sequence_bias", "watermarking_config", "dola_layers", "cache_config",
    "assistant_early_exit", "assistant_ensemble_weight", "speculation_type", "generation_kwargs",
)  # fmt: skip
"""Settings of transformers with no greedy value but null."""

SETTINGS = frozenset({*GREEDY, *OTHERS})
"""The keys of a `config.json` that are about decoding."""


def read_generation(directory: Path) -> dict[str, int]:
    """Fields of a checkpoint's config that the model's own generation settings set; none if it has no settings.

    Those of `generation_config.json` win over those of `config.json`. `max_length` counts the start token,
    max_new_tokens does not; if neither is set, the 20 of Hugging Face's own is no choice of the model's and is not
    taken. Without a start token of its own a decoder starts with `bos_token_id`, as `generate` has it. Raises
    CheckpointError if a file is not JSON, or a setting has another value than a greedy decoder's or is not known:
    answers are decoded greedily.
    """
    settings = _settings(directory / FILE) if is_there(directory / FILE) else {}
    legacy = {
        name: value for name, value in _settings(directory / CONFIG).items()
        if name in SETTINGS and name not in settings
    }  # fmt: skip
    _check(settings, directory / FILE)
    _check(legacy, directory / CONFIG)
    settings = legacy | settings
    fields: dict[str, int] = {name: single_token(settings[name]) for name in TOKENS if name in settings}
    if (start := fields.pop("bos_token_id", None)) is not None:
        fields.setdefault("decoder_start_token_id", start)
    longest = settings.get("max_new_tokens") or (settings["max_length"] - 1 if "max_length" in settings else None)
    return fields | ({"max_new_tokens": longest} if longest else {})


def single_token(value: Any) -> Any:
    """The one token of a list of one, anything else as it is."""
    return value[0] if isinstance(value, list) and value and value == value[:1] * len(value) else value


def _settings(path: Path) -> dict[str, Any]:
    """What a file sets; raises CheckpointError if it is no JSON object."""
    data = read_json_value(
        path, error=CheckpointError, subject=str(path), expected="a JSON object", fix="copy it again"
    )
    if not isinstance(data, dict):
        raise CheckpointError(
            str(path), expected="a JSON object", found=f"a {type(data).__name__}", fix="copy it again"
        )
    return {name: value for name, value in data.items() if value not in (None, [], {})}


def _check(settings: Mapping[str, Any], path: Path) -> None:
    """Raise CheckpointError, with all of them, if settings are others than greedy decoding's."""
    refused = {name: value for name, value in settings.items() if name not in GREEDY or not GREEDY[name](value)}
    if refused:
        found = "; ".join(f"{name}: {json.dumps(value)[:80]}" for name, value in refused.items())
        raise CheckpointError(
            str(path), expected="greedy decoding, with one number for each token and a length that can be decoded",
            found=found, fix="take these settings out of the file, if greedy answers are what you want",
        )
