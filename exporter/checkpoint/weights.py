"""Names and shapes of a checkpoint's tensors, as its config demands them."""

from __future__ import annotations

from collections.abc import Iterator

from glimmer_export.exporter.checkpoint.config import CheckpointConfig

__all__ = ["MEMORY_PREFIXES", "weight_shapes"]

MEMORY_PREFIXES = ("shared.", "memory_encoder.")
"""Tensors that decide what a passage's memory is: a store is bound to their digest."""


def weight_shapes(config: CheckpointConfig) -> dict[str, tuple[int, ...]]:
    """Every tensor a checkpoint of this config holds, by Hugging Face's T5 names below our prefixes."""
    return dict(_weights(config))


def _weights(config: CheckpointConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    traits = config.shape.traits
    yield "shared.weight", (config.vocab_size, config.d_model)
    if traits.has_memory:
        yield from _encoder("memory_encoder", config, config.num_memory_layers, final_norm=config.memory_final_norm)
    if config.separate_question_encoder:
        yield from _encoder("question_encoder", config, config.num_memory_layers, final_norm=config.memory_final_norm)
    yield from _encoder("live_encoder", config, config.num_live_layers, final_norm=True)
    if config.separate_reranker:
        yield from _encoder("reranker", config, config.num_stage_a_layers, final_norm=False)
    if traits.selects:
        yield "score.weight", (1, config.d_model)
        yield "score.bias", (1,)
    if config.num_shortlisted is not None:
        yield "shortlist_score.weight", (1, config.d_model)
        yield "shortlist_score.bias", (1,)
    yield from _decoder(config)
    if not config.tie_word_embeddings:
        yield "lm_head.weight", (config.vocab_size, config.d_model)


def _encoder(
    prefix: str, config: CheckpointConfig, num_layers: int, *, final_norm: bool
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for index in range(num_layers):
        layer = f"{prefix}.block.{index}.layer"
        yield from _attention(f"{layer}.0", "SelfAttention", config, relative_bias=index == 0)
        yield from _feed_forward(f"{layer}.1", config)
    if final_norm:
        yield f"{prefix}.final_layer_norm.weight", (config.d_model,)


def _decoder(config: CheckpointConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    for index in range(config.num_decoder_layers):
        layer, first = f"decoder.block.{index}.layer", index == 0
        across = first and config.cross_attention_bias
        yield from _attention(f"{layer}.0", "SelfAttention", config, relative_bias=first)
        yield from _attention(f"{layer}.1", "EncDecAttention", config, relative_bias=across)
        yield from _feed_forward(f"{layer}.2", config)
    yield "decoder.final_layer_norm.weight", (config.d_model,)


def _attention(
    layer: str, name: str, config: CheckpointConfig, *, relative_bias: bool
) -> Iterator[tuple[str, tuple[int, ...]]]:
    for projection in ("q", "k", "v"):
        yield f"{layer}.{name}.{projection}.weight", (config.inner_dim, config.d_model)
    yield f"{layer}.{name}.o.weight", (config.d_model, config.inner_dim)
    if relative_bias:
        buckets = config.relative_attention_num_buckets
        yield f"{layer}.{name}.relative_attention_bias.weight", (buckets, config.num_heads)
    yield f"{layer}.layer_norm.weight", (config.d_model,)


def _feed_forward(layer: str, config: CheckpointConfig) -> Iterator[tuple[str, tuple[int, ...]]]:
    inputs = ("wi_0", "wi_1") if config.feed_forward_proj == "gated-gelu" else ("wi",)
    for name in inputs:
        yield f"{layer}.DenseReluDense.{name}.weight", (config.d_ff, config.d_model)
    yield f"{layer}.DenseReluDense.wo.weight", (config.d_model, config.d_ff)
    yield f"{layer}.layer_norm.weight", (config.d_model,)
