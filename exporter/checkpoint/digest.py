"""Digests of a checkpoint: of all of it, and of the part that decides what a passage's memory is."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.checkpoint.weights import MEMORY_PREFIXES

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from glimmer_export.exporter.checkpoint.config import CheckpointConfig
    from glimmer_export.exporter.checkpoint.read import Checkpoint

__all__ = ["checkpoint_digest", "memory_digest"]

PASSAGE_FIELDS = ("passage_length", "passage_template", "eos_token_id", "passage_eos")
LATER_FIELDS = ("question_eos", "passage_eos", "cross_attention_bias", "separate_reranker", "num_shortlisted")
"""Fields that configs have had since: if one has its default, the digest is that of a config without it."""
MEMORY_FIELDS = (
    "vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_memory_layers", "feed_forward_proj",
    "relative_attention_num_buckets", "relative_attention_max_distance", "layer_norm_epsilon", "memory_final_norm",
)  # fmt: skip


def checkpoint_digest(checkpoint: Checkpoint) -> str:
    """SHA-256 over the config and every tensor's name, dtype, shape and bytes, whatever files they came in."""
    fields = _present(checkpoint.config, checkpoint.config.model_dump())
    return _digest(fields, checkpoint.tensors, sorted(checkpoint.tensors))


def memory_digest(checkpoint: Checkpoint) -> str:
    """SHA-256 over what decides a store's content: passage text handling, and the memory encoder's shape and weights.

    Equal for every bundle made from one checkpoint, and for checkpoints that share a memory encoder. If there is no
    memory (`fid`) a store holds only token ids, and the text handling alone counts.
    """
    config = checkpoint.config
    fields = PASSAGE_FIELDS + (MEMORY_FIELDS if config.shape.traits.has_memory else ())
    names = [name for name in sorted(checkpoint.tensors) if name.startswith(MEMORY_PREFIXES)]
    values = _present(config, {field: getattr(config, field) for field in fields})
    return _digest(values, checkpoint.tensors, names if config.shape.traits.has_memory else [])


def _present(config: CheckpointConfig, fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that count: a later one only if it has another value than its default."""
    defaults = {name: type(config).model_fields[name].default for name in LATER_FIELDS}
    return {name: value for name, value in fields.items() if name not in defaults or value != defaults[name]}


def _digest(fields: Mapping[str, Any], tensors: Mapping[str, Tensor], names: Iterable[str]) -> str:
    import torch

    digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for name in names:
        tensor = tensors[name].contiguous()
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        content: NDArray[np.uint8] = tensor.reshape(-1).view(torch.uint8).numpy()
        digest.update(content.data)
    return digest.hexdigest()
