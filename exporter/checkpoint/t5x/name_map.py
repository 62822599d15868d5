"""The name map: where a T5X tree keeps what we call by other names. LUMEN and GLIMMER have no public layout there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glimmer_export.exporter.config.yaml_file import read_yaml
from glimmer_export.runtime.contract import OptionError

__all__ = ["ENTRIES", "STACKS", "layer_path", "name_map", "read_name_map"]

STACKS = ("memory_encoder", "question_encoder", "live_encoder", "reranker", "decoder")
PARTS = ("block", "relative_attention_bias", "final_layer_norm")
ENTRIES = {
    "shared": "token_embedder/embedding",
    "memory_encoder": "memory_encoder",
    "question_encoder": "question_encoder",
    "live_encoder": "live_encoder",
    "reranker": "reranker",
    "decoder": "decoder",
    "lm_head": "decoder/logits_dense/kernel",
    "score.weight": "score/kernel",
    "score.bias": "score/bias",
}
"""Our prefix -> their path, if the map does not say otherwise."""
KNOWN = (*ENTRIES, *(f"{stack}.{part}" for stack in STACKS for part in PARTS))
LAYER = re.compile(r"\{i(?:\+(\d{1,4}))?\}")
PATH = re.compile(r"[\w.-]+(/[\w.-]+)*", re.ASCII)


def read_name_map(path: Path) -> dict[str, str | None]:
    """Parse a YAML mapping of our prefixes to their paths; entries are described at `name_map`.

    Raises OptionError if the file cannot be read, for a prefix that we do not have, and for a value that is no path.
    """
    data: Any = read_yaml(
        path, error=OptionError, subject=f"name map {path}", expected="a YAML mapping of our prefixes to their paths",
        fix="correct the file",
    )
    if not isinstance(data, dict):
        raise OptionError(
            f"name map {path}", expected="a YAML mapping of our prefixes to their paths", found=type(data).__name__,
            fix=f"write lines such as `memory_encoder: {ENTRIES['memory_encoder']}`",
        )
    return {str(prefix): _checked(prefix, value, f"name map {path}") for prefix, value in data.items()}


def _checked(prefix: Any, value: Any, subject: str) -> str | None:
    if prefix not in KNOWN:
        raise OptionError(
            subject, expected=f"prefixes of {', '.join(KNOWN)}", found=repr(prefix), fix="correct the name"
        )
    if value is None and prefix == "score.bias":
        return None
    layered = prefix.endswith((".block", ".relative_attention_bias"))
    if not isinstance(value, str) or not PATH.fullmatch(LAYER.sub("0", value) if layered else value):
        raise OptionError(
            f"{subject}, {prefix}",
            expected="names with slashes between them" + (", with {i} or {i+4} for the layer" if layered else ""),
            found=repr(value)[:80], fix="write the path below `target`",
        )
    return value


def name_map(architecture: str, given: Mapping[str, str | None]) -> dict[str, str | None]:
    """The whole map: `given` over the defaults.

    A stack's entry is the path below which T5X's own names stand (`layers_{i}/...`, `relpos_bias/rel_embedding`,
    `encoder_norm/scale`). `STACK.block`, `STACK.relative_attention_bias` and `STACK.final_layer_norm` replace the path
    of one of these: `{i}` is the layer's number, `{i+4}` that of a layer four further on, and a block without either
    has its layers stacked on axis 1. `score.bias` may be null, if the score has none. FiD's one encoder, our live
    encoder, is called `encoder` by default.
    """
    defaults = ENTRIES | ({"live_encoder": "encoder"} if architecture == "fid" else {})
    return {**defaults, **given}


def layer_path(pattern: str, layer: int) -> str:
    """The path of one layer by a pattern that may hold `{i}` or `{i+4}`."""
    return LAYER.sub(lambda match: str(layer + int(match.group(1) or 0)), pattern)
