"""The shape of a T5 model: what its Hugging Face `config.json` says of it, and what our size presets fix."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from typing_extensions import Self

from glimmer_export.exporter.checkpoint.config import Size
from glimmer_export.exporter.checkpoint.generation import single_token
from glimmer_export.exporter.config.read import read_config, validation_message
from glimmer_export.runtime.contract import CheckpointError, is_there
from glimmer_export.runtime.contract.kinds import T5, error_of_kind
from glimmer_export.runtime.contract.manifest import MAX_DEPTH
from glimmer_export.runtime.contract.records import read_json_value

__all__ = ["T5Shape", "parse_t5_shape", "preset", "read_t5_shape"]

CONFIG = "config.json"

ACTIVATIONS = {"relu": {"relu"}, "gated-gelu": {"gelu_new", "gelu_pytorch_tanh"}}
"""The names that transformers has for what each `feed_forward_proj` computes; the two of gelu are one function."""

TOKENS = ("pad_token_id", "eos_token_id", "decoder_start_token_id")

SOURCE_ONLY = {"num_layers", "num_decoder_layers", "scale_decoder_outputs", "dense_act_fn", "is_gated_act"}
"""The fields that a checkpoint's config has under other names, or not at all."""

UNSUPPORTED = ("is_decoder", "tie_encoder_decoder", "pruned_heads", "per_layer_config", "quantization_config")
"""Keys that change what is computed, or how weights are stored, unless they are false, null or empty."""


class T5Shape(BaseModel):
    """A T5's sizes, by Hugging Face's field names and with its defaults.

    Those it has defaults for but that no published config leaves out (the sizes) are required: a guess would only be
    found out, if at all, by a tensor's shape.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())

    vocab_size: int = Size
    d_model: int = Size
    d_kv: int = Size
    d_ff: int = Size
    num_layers: int = Field(ge=1, le=MAX_DEPTH)
    num_decoder_layers: int | None = Field(default=None, ge=1, le=MAX_DEPTH)
    num_heads: int = Size
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: Literal["relu", "gated-gelu"] = "relu"
    dense_act_fn: str | None = None
    is_gated_act: bool | None = None
    tie_word_embeddings: bool = True
    scale_decoder_outputs: bool | None = None
    pad_token_id: int = 0
    eos_token_id: int = 1
    decoder_start_token_id: int | None = None

    @model_validator(mode="after")
    def _feed_forward_is_what_is_computed(self) -> Self:
        """Since 4.20 transformers follows these two if a config has them, before that `feed_forward_proj` alone."""
        known, gated = ACTIVATIONS[self.feed_forward_proj], self.feed_forward_proj == "gated-gelu"
        if self.dense_act_fn is not None and self.dense_act_fn not in known:
            raise ValueError(f"dense_act_fn {self.dense_act_fn!r} is not what {self.feed_forward_proj} computes")
        if self.is_gated_act not in (None, gated):
            raise ValueError(f"is_gated_act {self.is_gated_act} is not what {self.feed_forward_proj} computes")
        return self

    @property
    def scales_decoder_output(self) -> bool:
        """T5 v1.0's d_model**-0.5 in front of the vocabulary projection, which goes with a tied embedding.

        Before transformers 5, `tie_word_embeddings` said it; since then that is always true, and says only that
        `lm_head` may be left out of the file.
        """
        return self.tie_word_embeddings if self.scale_decoder_outputs is None else self.scale_decoder_outputs

    def checkpoint_fields(self) -> dict[str, Any]:
        """The fields of a CheckpointConfig that do not depend on how the encoder is cut."""
        fields = self.model_dump(exclude=SOURCE_ONLY)
        if self.decoder_start_token_id is None:
            fields["decoder_start_token_id"] = self.pad_token_id
        return fields | {
            "num_decoder_layers": self.num_decoder_layers or self.num_layers,
            "tie_word_embeddings": self.scales_decoder_output,
        }


def read_t5_shape(directory: Path) -> T5Shape:
    """Parse the `config.json` of a Hugging Face T5; keys that do not change what is computed are passed over.

    Raises CheckpointError if it is missing, not JSON, of another model, or has a wrong or missing field, or asks
    for something that we do not compute, such as another activation.
    """
    path = directory / CONFIG
    if not is_there(path):
        absent = CheckpointError(
            f"T5 checkpoint {directory}", expected=f"a file {CONFIG}", found="none",
            fix="name a directory in Hugging Face's layout, as `save_pretrained` writes it",
        )
        raise error_of_kind(absent, directory, T5)
    data = read_json_value(
        path, error=CheckpointError, subject=str(path), expected="a JSON object", fix="copy it again"
    )
    if not isinstance(data, dict) or data.get("model_type") != "t5":
        found = repr(data.get("model_type")) if isinstance(data, dict) else type(data).__name__
        other = CheckpointError(
            str(path), expected='"model_type": "t5"', found=found,
            fix="only T5 (v1.0, v1.1, flan) can be partitioned into a checkpoint",
        )
        raise error_of_kind(other, directory, T5)
    if refused := [f"{name}: {json.dumps(data[name])[:80]}" for name in UNSUPPORTED if data.get(name)]:
        raise CheckpointError(
            str(path), expected="a plain T5", found="; ".join(refused),
            fix="save the model without it, in float weights",
        )
    fields = {name: data[name] for name in T5Shape.model_fields if name in data}
    fields |= {name: single_token(fields[name]) for name in TOKENS if name in fields}
    return parse_t5_shape(fields, subject=str(path))


def parse_t5_shape(data: object, *, subject: str) -> T5Shape:
    """Validate a shape given as a mapping; raises CheckpointError that names each wrong or missing field."""
    try:
        return T5Shape.model_validate(data)
    except ValidationError as error:
        raise CheckpointError(
            subject, expected="the sizes and options of a T5, each of its type", found=validation_message(error),
            fix="correct the named fields; other activations than relu and gated-gelu are not supported",
        ) from None


def preset(name: str) -> T5Shape:
    """The shape of a random model of a size, such as "base", or of a YAML file like those; raises as `read_config`."""
    return read_config("size", name, T5Shape)
