"""`tokenizer_config.json` and `special_tokens_map.json`: what transformers wants to know beside a tokenizer.json."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glimmer_export.exporter.checkpoint.config import CheckpointConfig

__all__ = ["tokenizer_configs"]


def tokenizer_configs(content: bytes, config: CheckpointConfig) -> dict[str, dict[str, Any]]:
    """The content of both files, by name, for a tokenizer.json that has been checked.

    Padding, EOS and unknown token are those that the model's own config and the tokenizer have ids for; with them
    `AutoTokenizer` pads, and gives what the model's `generate` takes and no more. A text is cut, where that is asked
    for, to the model's longest.
    """
    tokenizer = json.loads(content)
    pieces = _pieces(tokenizer)
    unknown = tokenizer["model"].get("unk_token") or pieces.get(tokenizer["model"].get("unk_id"))
    tokens = {
        "pad_token": pieces.get(config.pad_token_id),
        "eos_token": pieces.get(config.eos_token_id),
        "unk_token": unknown,
    }
    special = {name: token for name, token in tokens.items() if token is not None}
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **special,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": max(config.question_length, config.passage_length),
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
    }
    return {"tokenizer_config.json": settings, "special_tokens_map.json": special}


def _pieces(tokenizer: dict[str, Any]) -> dict[int, str]:
    """The token of each id: those of the model's vocabulary, and those that were added."""
    vocabulary = tokenizer["model"]["vocab"]
    if isinstance(vocabulary, dict):
        pieces = {number: piece for piece, number in vocabulary.items()}
    else:
        pieces = {number: piece for number, (piece, _score) in enumerate(vocabulary)}
    return pieces | {token["id"]: token["content"] for token in tokenizer.get("added_tokens", ())}
