"""Checkpoints that compute the same function with less pleasant numbers, as a trained T5 may have them.

Each helper takes a config and its tensors and gives new ones; a test holds that no answer changes in FP32.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import reduce
from pathlib import Path

import torch
from torch import Tensor

from glimmer_export.exporter.checkpoint import CheckpointConfig, read_checkpoint, write_checkpoint

__all__ = [
    "Inflation", "inflate", "inflate_checkpoint", "inflate_feed_forward", "inflate_keys", "inflate_residual",
    "inflate_values", "move_norm_scales", "rotate_residual", "shift_position_bias",
]  # fmt: skip

Weights = dict[str, Tensor]
Inflated = tuple[CheckpointConfig, Weights]
Inflation = Callable[[CheckpointConfig, Mapping[str, Tensor]], Inflated]

RESIDUAL_WRITERS = re.compile(
    r"^shared\.weight$|\.(o|wo)\.weight$|^(memory|question)_encoder\.final_layer_norm\.weight$"
)
"""A memory encoder's final norm writes the stream that the live encoder goes on with."""


def inflate_residual(config: CheckpointConfig, tensors: Mapping[str, Tensor], factor: float) -> Inflated:
    """The residual stream of every stack times `factor`.

    RMSNorm takes it out again, its epsilon aside; the score head, which reads the stream itself, is divided by it. A
    tied output projection is untied first: it reads the embedding as it was.
    """
    weights = {
        name: tensor * factor if RESIDUAL_WRITERS.search(name) else tensor.clone() for name, tensor in tensors.items()
    }
    if config.tie_word_embeddings:
        weights["lm_head.weight"] = tensors["shared.weight"] * config.d_model**-0.5
        config = config.model_copy(update={"tie_word_embeddings": False})
    if "score.weight" in weights:
        weights["score.weight"] /= factor
    return config, weights


def inflate_feed_forward(
    config: CheckpointConfig, tensors: Mapping[str, Tensor], factor: float, *, seed: int = 0, rows: int = 4
) -> Inflated:
    """A few rows of every `wi_1` (ReLU: `wi`) times `factor`, a power of two; the columns of `wo` divided."""
    weights = {name: tensor.clone() for name, tensor in tensors.items()}
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(weights):
        if found := re.match(r"(.*\.DenseReluDense)\.(wi|wi_1)\.weight$", name):
            chosen = torch.randperm(config.d_ff, generator=generator)[:rows]
            weights[name][chosen] *= factor
            weights[f"{found[1]}.wo.weight"][:, chosen] /= factor
    return config, weights


def move_norm_scales(
    config: CheckpointConfig, tensors: Mapping[str, Tensor], *, seed: int = 0, octaves: float = 3.0
) -> Inflated:
    """Channels of every RMSNorm times 2**-octaves to 2**octaves, at random; the columns of what reads them divided.

    The encoder's final norm is read by every key and value of the decoder's cross-attention; the decoder's by the
    output projection, and left alone where that is tied. A memory encoder's final norm writes the residual stream.
    """
    weights = {name: tensor.clone() for name, tensor in tensors.items()}
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(weights):
        readers = _readers(name, weights)
        if readers:
            scale = torch.exp2((2 * torch.rand(config.d_model, generator=generator) - 1) * octaves)
            weights[name] *= scale
            for reader in readers:
                weights[reader] /= scale
    return config, weights


def _readers(norm: str, weights: Weights) -> list[str]:
    """Names of the matrices that alone read what a norm writes; none where `norm` is no norm, or others read it too."""
    if norm == "live_encoder.final_layer_norm.weight":
        return [name for name in weights if re.search(r"\.EncDecAttention\.[kv]\.weight$", name)]
    if norm == "decoder.final_layer_norm.weight":
        return [name for name in weights if name == "lm_head.weight"]
    if not norm.endswith(".layer_norm.weight"):
        return []
    layer = re.escape(norm.removesuffix(".layer_norm.weight"))
    reads = re.compile(layer + r"\.(SelfAttention\.[qkv]|EncDecAttention\.q|DenseReluDense\.wi(_[01])?)\.weight$")
    return [name for name in weights if reads.match(name)]


def inflate_values(
    config: CheckpointConfig,
    tensors: Mapping[str, Tensor],
    exponents: tuple[int, int],
    *,
    share: float = 1 / 3,
    seed: int = 0,
) -> Inflated:
    """A share of the rows of every `v` times powers of two between two ends; the columns of `o` divided.

    A context is a weighted mean of values. Every attention has its own rows: the encoders', the decoder's of itself
    and of the passages.
    """
    weights = {name: tensor.clone() for name, tensor in tensors.items()}
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(weights):
        if name.endswith("Attention.v.weight"):
            chosen = torch.randperm(config.inner_dim, generator=generator)[: max(1, round(share * config.inner_dim))]
            powers = torch.randint(exponents[0], exponents[1] + 1, (len(chosen),), generator=generator)
            factor = torch.exp2(powers.float())
            weights[name][chosen] *= factor[:, None]
            weights[name.removesuffix("v.weight") + "o.weight"][:, chosen] /= factor
    return config, weights


def inflate_keys(config: CheckpointConfig, tensors: Mapping[str, Tensor], octaves: int, *, seed: int = 0) -> Inflated:
    """Rows of every `q` times 2**-octaves to 2**octaves, at random; those of `k` divided."""
    weights = {name: tensor.clone() for name, tensor in tensors.items()}
    generator = torch.Generator().manual_seed(seed)
    for name in sorted(weights):
        if name.endswith("Attention.q.weight"):
            powers = torch.randint(-octaves, octaves + 1, (config.inner_dim,), generator=generator)
            factor = torch.exp2(powers.float())
            weights[name] *= factor[:, None]
            weights[name.removesuffix("q.weight") + "k.weight"] /= factor[:, None]
    return config, weights


def shift_position_bias(config: CheckpointConfig, tensors: Mapping[str, Tensor], shift: float) -> Inflated:
    """A constant added to every entry of every position-bias table: softmax takes it out again.

    The entries lose the bits that FP32 has no room for behind the shift.
    """
    return config, {
        name: tensor + shift if name.endswith("relative_attention_bias.weight") else tensor.clone()
        for name, tensor in tensors.items()
    }


def rotate_residual(config: CheckpointConfig, tensors: Mapping[str, Tensor]) -> Inflated:
    """Every residual stream in the principal axes of what is written to it: its channels then differ most.

    An RMSNorm without weights is the same in any axes; so its weights go into what reads it first. Only for
    checkpoints with an output projection of its own and no final norm of the memory, which writes the stream.
    """
    if config.tie_word_embeddings or config.memory_final_norm:
        raise ValueError("a norm here has readers, or a stream, that cannot be turned")
    weights = {name: tensor.clone() for name, tensor in tensors.items()}
    for name in sorted(weights):
        readers = _readers(name, weights)
        for reader in readers:
            weights[reader] *= weights[name]
        if readers:
            weights[name].fill_(1.0)
    written = [name for name in sorted(weights) if RESIDUAL_WRITERS.search(name)]
    rows = torch.cat([weights[name] if name == "shared.weight" else weights[name].T for name in written]).double()
    axes = torch.linalg.svd(rows, full_matrices=False)[2].float()
    for name, weight in weights.items():
        if name in written and name != "shared.weight":
            weights[name] = axes @ weight
        elif name in written or name == "score.weight" or _reads_norm(name):
            weights[name] = weight @ axes.T
    return config, weights


def _reads_norm(name: str) -> bool:
    return re.search(r"^lm_head\.weight$|Attention\.[qkv]\.weight$|\.wi(_[01])?\.weight$", name) is not None


def inflate_checkpoint(source: Path, directory: Path, *inflations: Inflation) -> Path:
    """Write a checkpoint again, inflated, with its tokenizer."""
    checkpoint = read_checkpoint(source)
    config, weights = checkpoint.config, {name: tensor.float() for name, tensor in checkpoint.tensors.items()}
    for each in inflations:
        config, weights = each(config, weights)
    write_checkpoint(directory, config, weights, checkpoint.tokenizer)
    return directory


def inflate(text: str) -> Inflation:
    """An inflation by a short name, or several joined by ` + `.

    `residual 2^10`, `feed-forward 2^7 seed 1`, `norms 2^3 seed 2`, `values 2^8 seed 0` (a third of the channels),
    `few values 2^4..8 seed 0` (6%), `keys 2^8 seed 0`, `position bias 256`, `rotation`.
    """
    if " + " in text:
        parts = [inflate(part) for part in text.split(" + ")]
        return lambda config, tensors: reduce(lambda made, part: part(*made), parts, (config, dict(tensors)))
    numbers = [int(number) for number in re.findall(r"\d+", text.replace("2^", ""))]
    kind = re.split(r" (?=\d)", text)[0]
    by_kind: dict[str, Inflation] = {
        "residual": lambda config, tensors: inflate_residual(config, tensors, 2.0 ** numbers[0]),
        "feed-forward": lambda config, tensors: inflate_feed_forward(
            config, tensors, 2.0 ** numbers[0], seed=numbers[1]
        ),
        "norms": lambda config, tensors: move_norm_scales(config, tensors, seed=numbers[1], octaves=numbers[0]),
        "values": lambda config, tensors: inflate_values(config, tensors, (numbers[0], numbers[0]), seed=numbers[1]),
        "few values": lambda config, tensors: inflate_values(
            config, tensors, (numbers[0], numbers[1]), share=0.06, seed=numbers[2]
        ),
        "keys": lambda config, tensors: inflate_keys(config, tensors, numbers[0], seed=numbers[1]),
        "position bias": lambda config, tensors: shift_position_bias(config, tensors, numbers[0]),
        "rotation": rotate_residual,
    }
    return by_kind[kind]
