"""A checkpoint's config.json as transformers' config: the same fields, checked by the same model."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PretrainedConfig

from glimmer_export.exporter.checkpoint.config import CheckpointConfig, parse_config

__all__ = ["GlimmerConfig"]

FIELDS = tuple(name for name in CheckpointConfig.model_fields if name != "model_type")


class GlimmerConfig(PretrainedConfig):  # type: ignore[misc]  # transformers' types are not read
    """The fields of `glimmer_export.exporter.checkpoint.CheckpointConfig`, as attributes.

    Raises CheckpointError for a missing field or a wrong value. What is written back holds these fields alone, so that
    a directory that transformers saved is a checkpoint again.
    """

    model_type = "glimmer"
    is_encoder_decoder = True
    has_no_defaults_at_init = True
    keys_to_ignore_at_inference: ClassVar[list[str]] = ["encoder_last_hidden_state"]
    """What Trainer does not gather while it evaluates: of base and 25 passages, 27 MB a question."""

    def __init__(self, **fields: Any) -> None:
        given = {name: fields.pop(name) for name in FIELDS if name in fields}
        config = parse_config(given, subject="glimmer config")
        fields.pop("is_encoder_decoder", None)
        super().__init__(
            is_encoder_decoder=True, use_cache=False, **{name: getattr(config, name) for name in FIELDS}, **fields
        )

    @property
    def checkpoint_config(self) -> CheckpointConfig:
        """The same fields as our own config; raises CheckpointError if one was set to something wrong."""
        return parse_config({name: getattr(self, name) for name in FIELDS}, subject="glimmer config")

    def to_dict(self) -> dict[str, Any]:
        """The fields of config.json."""
        return {"model_type": self.model_type, **{name: getattr(self, name) for name in FIELDS}}

    def to_diff_dict(self) -> dict[str, Any]:
        """The same: config.json leaves nothing out."""
        return self.to_dict()

    def get_text_config(self, *_: bool | None, **__: bool | None) -> GlimmerConfig:
        """The config itself: transformers would rename the fields of encoder and decoder in a copy."""
        return self

    def _get_non_default_generation_parameters(self) -> dict[str, Any]:
        """None: transformers would move max_new_tokens out of the config, where a bundle's length comes from."""
        return {}
