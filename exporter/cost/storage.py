"""Bytes: of a passage in the memory store by codec, and of what a decoder keeps while it answers.

The store's size is that of its shards, un-padded: passage texts and their index come on top.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from exporter.cost.dims import run_dims
from exporter.cost.model import CostModel
from exporter.cost.workload import Workload
from runtime.contract.shard_layout import shard_tensors

__all__ = ["CODECS", "StoreCodec", "decoder_cache_bytes", "store_codecs"]

INT4_GROUP = 64
FP32, FP16 = 4, 2


@dataclass(frozen=True)
class StoreCodec:
    """A codec's size: bytes of one passage, and whether this version of glimmer-export writes and reads it."""

    bytes_per_passage: int
    available: bool


CODECS = ("fp16", "int8", "int4", "pq_8x", "pq_16x")
"""fp16 is the store's own. The others by their plan (design section 5): int8 with an FP16 scale a token, int4 in groups
of 64 with an FP16 scale each, product quantisation with a byte for 4 or 8 dimensions; frozen tables are left out."""


def store_codecs(model: CostModel, passage_tokens: int) -> dict[str, StoreCodec]:
    """Sizes of a passage by codec; `none` alone where the store holds token ids and no memory (`fid`)."""
    if not model.shape.traits.has_memory:
        return {"none": StoreCodec(_shard_bytes(passage_tokens, model.shape.d_model, None), available=True)}
    width = model.shape.d_model
    own = _shard_bytes(passage_tokens, width, "fp16")
    without_memory = own - passage_tokens * width * FP16
    token_bytes = {
        "int8": width + FP16,
        "int4": math.ceil(width / 2) + FP16 * math.ceil(width / INT4_GROUP),
        "pq_8x": math.ceil(width / 4),
        "pq_16x": math.ceil(width / 8),
    }
    planned = {
        name: StoreCodec(without_memory + passage_tokens * size, available=False) for name, size in token_bytes.items()
    }
    return {"fp16": StoreCodec(own, available=True), **planned}


def decoder_cache_bytes(model: CostModel, workload: Workload) -> dict[str, int]:
    """What one question's decoder holds in FP32, besides weights.

    `self_attention` is the cache of its own keys and values; it attends to the encoder's states (`absorbed`), or to
    keys and values of them for every layer (`cached`).
    """
    shape = model.shape
    encoder_tokens = run_dims(model, workload, "decoder_step")["encoder_tokens"]
    key_and_value = 2 * shape.num_decoder_layers * model.inner_dim * FP32
    return {
        "self_attention": key_and_value * shape.cache_length,
        "absorbed": encoder_tokens * shape.d_model * FP32,
        "cached": key_and_value * encoder_tokens,
    }


def _shard_bytes(num_tokens: int, d_model: int, codec: str | None) -> int:
    """What one passage more adds to a shard."""
    with_it, without = (
        sum(tensor.num_bytes for tensor in shard_tensors(passages, passages * num_tokens, d_model, codec))
        for passages in (2, 1)
    )
    return with_it - without
