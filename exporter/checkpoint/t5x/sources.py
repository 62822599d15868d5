"""Which array of a T5X tree holds each of our tensors, and in which shapes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from glimmer_export.exporter.checkpoint.config import CheckpointConfig
from glimmer_export.exporter.checkpoint.t5x.name_map import LAYER, layer_path
from glimmer_export.exporter.checkpoint.weights import weight_shapes

__all__ = ["Source", "tensor_sources"]

ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "out"}
BIAS = "relpos_bias/rel_embedding"
RELATIVE_BIAS = "relative_attention_bias"


@dataclass(frozen=True)
class Source:
    """Where one tensor comes from.

    `paths`: its array, or those of all layers, which must agree. `shapes`: those the array may have; it is folded to
    two axes and `transposed` to become ours. `layer`: its place on axis 1, where layers are stacked there. `copies`: a
    third axis, axis 1, holds copies that must agree.
    """

    paths: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    transposed: bool
    layer: int | None = None
    copies: bool = False


@dataclass(frozen=True)
class _Stack:
    """Paths of one encoder or decoder; `block` without `{i}` has its layers stacked."""

    block: str
    relative_bias: str
    final_norm: str
    num_layers: int

    @property
    def stacked(self) -> bool:
        return not LAYER.search(self.block)


def tensor_sources(
    config: CheckpointConfig, names: Mapping[str, str | None], found: Collection[str]
) -> dict[str, Source]:
    """Every tensor of the config that the tree must hold, by our name; `found` are the tree's own.

    Left out is a score bias that the map says there is none of.
    """
    layers = {
        "memory_encoder": config.num_memory_layers, "question_encoder": config.num_memory_layers,
        "live_encoder": config.num_live_layers, "reranker": config.num_stage_a_layers,
        "decoder": config.num_decoder_layers,
    }
    stacks = {stack: _stack(stack, names, found, num_layers) for stack, num_layers in layers.items()}
    sources: dict[str, Source] = {}
    for name, shape in weight_shapes(config).items():
        stack, _, rest = name.partition(".")
        if stack in stacks:
            sources[name] = _in_stack(stack, rest, stacks[stack], shape, config)
            continue
        path = names[name if stack == "score" else stack]
        if path is not None:
            transposed = stack in ("lm_head", "score") and len(shape) == 2
            sources[name] = Source((path,), (shape[::-1] if transposed else shape,), transposed)
    return sources


def _stack(stack: str, names: Mapping[str, str | None], found: Collection[str], num_layers: int) -> _Stack:
    root, kind = names[stack], "decoder" if stack == "decoder" else "encoder"
    scanned = any(name.startswith(f"{root}/{kind}/") for name in found)
    block = names.get(f"{stack}.block") or (f"{root}/{kind}" if scanned else f"{root}/layers_{{i}}")
    # One table for all layers, or one in each, which then must agree.
    bias = f"{root}/{BIAS}"
    if bias not in found and f"{layer_path(block, 0)}/{BIAS}" in found:
        bias = f"{block}/{BIAS}"
    return _Stack(
        block=block,
        relative_bias=names.get(f"{stack}.{RELATIVE_BIAS}") or bias,
        final_norm=names.get(f"{stack}.final_layer_norm") or f"{root}/{kind}_norm/scale",
        num_layers=num_layers,
    )


def _in_stack(stack: str, rest: str, paths: _Stack, shape: tuple[int, ...], config: CheckpointConfig) -> Source:
    if not rest.startswith("block."):
        return Source((paths.final_norm,), (shape,), transposed=False)
    _, index, below = rest.split(".", 2)
    layer = int(index)
    if RELATIVE_BIAS in below:
        return _relative_bias(paths, shape)
    path = layer_path(f"{paths.block}/{_t5x_name(below, decoder=stack == 'decoder')}", layer)
    shapes = _kernel_shapes(below, shape, config)
    if paths.stacked:
        shapes = tuple((size[0], paths.num_layers, *size[1:]) for size in shapes)
    return Source((path,), shapes, transposed=len(shape) == 2, layer=layer if paths.stacked else None)


def _relative_bias(paths: _Stack, shape: tuple[int, ...]) -> Source:
    """T5 reads one table in all layers; T5X may hold a copy for each, apart or stacked."""
    buckets, heads = shape
    if LAYER.search(paths.relative_bias):
        copies = tuple(layer_path(paths.relative_bias, layer) for layer in range(paths.num_layers))
        return Source(copies, ((heads, buckets),), transposed=True)
    stacked = (heads, paths.num_layers, buckets)
    return Source((paths.relative_bias,), ((heads, buckets), stacked), transposed=True, copies=True)


def _t5x_name(below: str, *, decoder: bool) -> str:
    """T5X's name in a layer, of ours below `block.{i}`: `layer.0.SelfAttention.q.weight` and so on."""
    _, place, module, *names, _ = below.split(".")
    if module == "layer_norm":
        norms = ("self_attention", "cross_attention", "mlp") if decoder else ("attention", "mlp")
        return f"pre_{norms[int(place)]}_layer_norm/scale"
    if module == "DenseReluDense":
        return f"mlp/{names[0]}/kernel"
    attention = "encoder_decoder_attention" if module == "EncDecAttention" else "attention"
    if decoder and module == "SelfAttention":
        attention = "self_attention"
    return f"{attention}/{ATTENTION[names[0]]}/kernel"


def _kernel_shapes(below: str, shape: tuple[int, ...], config: CheckpointConfig) -> tuple[tuple[int, ...], ...]:
    """T5X's shapes of a layer's tensor: kernels are (in, out); an attention's heads may have an axis of their own."""
    if len(shape) == 1:
        return (shape,)
    kernel, heads = shape[::-1], (config.num_heads, config.d_kv)
    if "Attention" not in below:
        return (kernel,)
    return (kernel, (*heads, kernel[1]) if below.endswith(".o.weight") else (kernel[0], *heads))
