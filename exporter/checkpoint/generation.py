"""`generation_config.json`: an answer's special tokens and length, and whether it asks for greedy decoding."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exporter.checkpoint.config import validation_message
from runtime.contract import CheckpointError

__all__ = ["read_generation"]

FILE = "generation_config.json"
TOKENS = ("pad_token_id", "eos_token_id", "decoder_start_token_id")


class Generation(BaseModel):
    """What we take from a generation config, and what would make another answer than greedy decoding does.

    Each of the latter has the one value that changes nothing, or null. Keys beside these are passed over.
    """

    model_config = ConfigDict(frozen=True, strict=True)

    pad_token_id: int | None = None
    eos_token_id: int | None = None
    decoder_start_token_id: int | None = None
    max_new_tokens: int | None = Field(default=None, ge=1, le=4096)
    max_length: int | None = Field(default=None, ge=2, le=4097)

    do_sample: Literal[False] | None = None
    num_beams: Literal[1] | None = None
    num_beam_groups: Literal[1] | None = None
    penalty_alpha: Literal[0] | None = None
    min_length: Literal[0] | None = None
    min_new_tokens: Literal[0] | None = None
    repetition_penalty: float | None = Field(default=None, ge=1, le=1)
    encoder_repetition_penalty: float | None = Field(default=None, ge=1, le=1)
    no_repeat_ngram_size: Literal[0] | None = None
    encoder_no_repeat_ngram_size: Literal[0] | None = None
    bad_words_ids: None = None
    force_words_ids: None = None
    forced_bos_token_id: None = None
    forced_eos_token_id: None = None
    sequence_bias: None = None
    suppress_tokens: None = None
    begin_suppress_tokens: None = None


def read_generation(directory: Path) -> dict[str, int]:
    """Fields of a checkpoint's config that `directory/generation_config.json` sets; none where there is no such file.

    `max_length` counts the start token, max_new_tokens does not; where neither is set, the 20 of Hugging Face's own is
    no choice of the model's and is not taken. Raises CheckpointError where the file is not JSON, has a wrong field, or
    asks for beams, sampling, penalties or forced tokens: answers are decoded greedily.
    """
    path = directory / FILE
    if not path.exists():
        return {}
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(str(path), expected="a JSON object", found=str(error), fix="copy it again") from None
    try:
        generation = Generation.model_validate(data)
    except ValidationError as error:
        raise CheckpointError(
            str(path), expected="greedy decoding, and a number for each token", found=validation_message(error),
            fix="correct the file, if greedy answers are what you want",
        ) from None
    fields = {name: value for name in TOKENS if (value := getattr(generation, name)) is not None}
    longest = generation.max_new_tokens or (generation.max_length - 1 if generation.max_length else None)
    return fields | ({"max_new_tokens": longest} if longest else {})
