"""Bytes: of a passage in the memory store by codec, and of what a decoder keeps while it answers.

The store's size is that of its shards, un-padded: passage texts and their index come on top.
"""

from __future__ import annotations

from contextlib import suppress

from glimmer_export.exporter.cost.dims import run_dims
from glimmer_export.exporter.cost.model import CostModel
from glimmer_export.exporter.cost.workload import Workload
from glimmer_export.runtime.contract import CODECS
from glimmer_export.runtime.contract.shard_layout import shard_tensors

__all__ = ["decoder_cache_bytes", "store_codecs"]

FP32 = 4


def store_codecs(model: CostModel, passage_tokens: int) -> dict[str, int]:
    """Bytes of a passage by codec; `none` alone where the store holds token ids and no memory (`fid`).

    What a store has once, its codec's arrays, is left out, and so is a codec that does not fit the model's width.
    """
    width = model.shape.d_model
    if not model.shape.traits.has_memory:
        return {"none": _shard_bytes(passage_tokens, width, None)}
    sizes = {}
    for codec in CODECS:
        with suppress(ValueError):
            sizes[codec] = _shard_bytes(passage_tokens, width, codec)
    return sizes


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
