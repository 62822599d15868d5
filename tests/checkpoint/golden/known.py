"""The models that the golden directories hold, so that a reader's tensors can be held against them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from glimmer_export.exporter.checkpoint import CheckpointConfig

__all__ = ["DIRECTORY", "GOLDEN", "KNOWN", "known_weights"]

DIRECTORY = Path(__file__).parent

# Heads that together are as wide as the model hide a missing transpose from every check of shapes.
SQUARE: dict[str, Any] = {
    "vocab_size": 40, "d_model": 12, "d_kv": 4, "d_ff": 20, "num_heads": 3, "num_memory_layers": 0,
    "num_stage_a_layers": 0, "num_stage_b_layers": 3, "num_decoder_layers": 2, "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16, "question_length": 6, "passage_length": 9, "num_retrieved": 3,
    "max_new_tokens": 4,
}
WIDE = SQUARE | {"d_kv": 8, "num_heads": 2, "num_memory_layers": 2}
V1_0 = {"feed_forward_proj": "relu", "tie_word_embeddings": True}
KNOWN = {
    "fid": CheckpointConfig(architecture="fid", **SQUARE),
    "fid v1.0": CheckpointConfig(architecture="fid", **SQUARE | V1_0),
    "glimmer": CheckpointConfig(
        architecture="glimmer", separate_question_encoder=True, memory_final_norm=True,
        **WIDE | {"num_stage_a_layers": 1, "num_stage_b_layers": 1, "num_selected": 2},
    ),
    "lumen": CheckpointConfig(architecture="lumen", **WIDE | {"num_stage_b_layers": 2}),
}
GOLDEN = {
    "t5x_inline": ("fid", torch.float32),
    "t5x_zarr": ("glimmer", torch.float32),
    "orbax_ocdbt": ("fid", torch.float32),
    "orbax_zarr3": ("lumen", torch.float32),
    "orbax_plain": ("fid v1.0", torch.bfloat16),
}
"""Golden directory -> the model it holds, and in which dtype."""


def known_weights(model: str, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Random weights of a model, its norms and biases included, so that none can stand for another.

    They lie in a file: torch draws other numbers from one seed where its CPU kernels are others.
    """
    weights = load_file(DIRECTORY / "known" / f"{model.replace(' ', '_')}.safetensors")
    return {name: weight.to(dtype) for name, weight in weights.items()}
