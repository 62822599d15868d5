"""What our graphs cost: multiply-adds in closed form, bytes of a stored passage by codec, and of a decoder's cache.

Every matrix product counts, those of attention and the vocabulary included. The forms are those of
`glimmer_export.exporter.stages`: lazy stage A and absorbed cross-attention attend to states that are never projected to
keys and values. A store's size is that of its shards, un-padded: passage texts and their index come on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from glimmer_export.exporter.cost.model import CostModel, Workload, num_runs, run_dims
from glimmer_export.runtime.contract import (
    CODECS,
    DECODER_STEP,
    MEMORY_ENCODER,
    STAGES,
    stages,
)
from glimmer_export.runtime.contract.shard_layout import shard_tensors

__all__ = [
    "StageCost", "decoder_cache_bytes", "graph_macs", "graph_weights", "passage_macs", "stage_costs",
    "store_codecs",
]  # fmt: skip


@dataclass(frozen=True)
class StageCost:
    """What one question costs in a graph: its runs, and multiply-adds of each and in all."""

    runs: int
    macs_per_run: int

    @property
    def macs(self) -> int:
        """Multiply-adds of all runs."""
        return self.runs * self.macs_per_run


def stage_costs(model: CostModel, workload: Workload) -> dict[str, StageCost]:
    """The cost of each stage that the model's bundle has a graph for, in the order of running."""
    return {
        name: StageCost(
            num_runs(model, workload, name), graph_macs(model, name, run_dims(model, workload, name))
        )
        for name in model.io
    }


def passage_macs(model: CostModel, workload: Workload) -> int:
    """Multiply-adds of pre-computing one passage's memory; 0 if there is none (`fid`)."""
    if not model.shape.traits.has_memory:
        return 0
    dims = run_dims(model, workload, MEMORY_ENCODER) | {"tokens": workload.passage_tokens}
    return graph_macs(model, MEMORY_ENCODER, dims)


def graph_macs(model: CostModel, graph: str, dims: Mapping[str, int]) -> int:
    """Multiply-adds of one run of a graph at batch 1, with values for the dimensions of `run_dims`."""
    shape, stage = model.shape, STAGES[graph]
    row = stage.row_dim(shape)
    rows, tokens = 1 if row is None else dims[row], sum(dims[dim] for dim in stage.tokens)
    match graph:
        case stages.MEMORY_ENCODER | stages.QUESTION_ENCODER:
            macs = _encoder(model, shape.num_memory_layers, rows, tokens)
        case stages.ENCODER:
            macs = _encoder(model, shape.num_stage_b_layers, rows, tokens)
        case stages.LIVE_SHORTLIST:
            macs = _one_layer_lazy(model, dims)
        case stages.LIVE_STAGE_A:
            macs = _stage_a(model, rows, dims)
        case stages.LIVE_STAGE_B:
            macs = _encoder(model, shape.num_read_layers(model.forms.stage_a), rows, tokens)
        case stages.CROSS_KV:
            macs = shape.num_decoder_layers * 2 * model.projection * tokens
        case stages.DECODER_PREFILL | stages.DECODER_STEP:
            macs = _decoder(model, tokens or 1, dims)
        case _:
            raise ValueError(f"no formula for a graph {graph!r}")
    return macs


def graph_weights(model: CostModel, graph: str) -> int:
    """Weights of the matrices that one run of a graph reads; embeddings are gathered, norms and biases small."""
    shape = model.shape
    match graph:
        case stages.MEMORY_ENCODER | stages.QUESTION_ENCODER:
            return shape.num_memory_layers * model.layer
        case stages.ENCODER:
            return shape.num_stage_b_layers * model.layer
        case stages.LIVE_SHORTLIST | stages.LIVE_STAGE_A:
            return (1 if graph == stages.LIVE_SHORTLIST else shape.num_stage_a_layers) * model.layer
        case stages.LIVE_STAGE_B:
            return shape.num_read_layers(model.forms.stage_a) * model.layer
        case stages.CROSS_KV:
            return shape.num_decoder_layers * 2 * model.projection
        case stages.DECODER_PREFILL | stages.DECODER_STEP:
            # Keys and values of cross-attention are cross_kv's if they are cached.
            projections = 8 if model.forms.cross_attention == "absorbed" else 6
            layer = projections * model.projection + model.feed_forward
            return shape.num_decoder_layers * layer + shape.d_model * shape.vocab_size
        case _:
            raise ValueError(f"no formula for a graph {graph!r}")


def _encoder(model: CostModel, layers: int, rows: int, tokens: int) -> int:
    """Encoder layers over rows of tokens: matrices, and scores and context of attention."""
    return layers * rows * tokens * (model.layer + 2 * tokens * model.inner_dim)


def _stage_a(model: CostModel, passages: int, dims: Mapping[str, int]) -> int:
    """Stage A over what it ranks, with the score head (GLIMMER paper, section 3.2; docs/design.md, section 2)."""
    shape = model.shape
    tokens, layers = dims["question"] + dims["passage"], shape.num_stage_a_layers
    if model.forms.stage_a == "full":
        return _encoder(model, layers, passages, tokens) + passages * shape.d_model
    if layers == 1:
        return _one_layer_lazy(model, dims)
    last = 2 * model.projection + _scored_token(model) + 2 * tokens * shape.num_heads * shape.d_model
    return _encoder(model, layers - 1, passages, tokens) + passages * last


def _one_layer_lazy(model: CostModel, dims: Mapping[str, int]) -> int:
    """One layer for one token over the k passages: its query and its scores on the question are the same for all."""
    passages, question, passage = dims["passages"], dims["question"], dims["passage"]
    attended = model.shape.num_heads * model.shape.d_model
    once = 2 * model.projection + question * attended
    return once + passages * (_scored_token(model) + (question + 2 * passage) * attended)


def _scored_token(model: CostModel) -> int:
    """What the scored token takes behind the attention's mean states, and the score head."""
    return 2 * model.projection + model.feed_forward + model.shape.d_model


def _decoder(model: CostModel, tokens: int, dims: Mapping[str, int]) -> int:
    """Decoder tokens over a self-attention cache of fixed length; only the last reaches the vocabulary."""
    shape = model.shape
    encoder_tokens = dims["encoder_tokens"]
    if model.forms.cross_attention == "absorbed":
        cross = 4 * model.projection + 2 * shape.num_heads * shape.d_model * encoder_tokens
    else:
        cross = 2 * model.projection + 2 * model.inner_dim * encoder_tokens
    own = 4 * model.projection + 2 * model.inner_dim * dims["cache_length"]
    return shape.num_decoder_layers * tokens * (own + cross + model.feed_forward) + shape.d_model * shape.vocab_size


FP32 = 4


def store_codecs(model: CostModel, passage_tokens: int) -> dict[str, int]:
    """Bytes of a passage by codec; `none` only if the store holds token ids and no memory (`fid`).

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
    encoder_tokens = run_dims(model, workload, DECODER_STEP)["encoder_tokens"]
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
