"""Checkpoints that compute the same function with less pleasant numbers, as a trained T5 may have them.

Each helper takes a config and its tensors and gives new ones; a test holds that no answer changes in FP32.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from exporter.checkpoint import CheckpointConfig, read_checkpoint, write_checkpoint

__all__ = ["Inflation", "inflate", "inflate_checkpoint", "inflate_feed_forward", "inflate_residual", "move_norm_scales"]

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


def inflate_checkpoint(source: Path, directory: Path, *inflations: Inflation) -> Path:
    """Write a checkpoint again, inflated, with its tokenizer."""
    checkpoint = read_checkpoint(source)
    config, weights = checkpoint.config, {name: tensor.float() for name, tensor in checkpoint.tensors.items()}
    for each in inflations:
        config, weights = each(config, weights)
    write_checkpoint(directory, config, weights, checkpoint.tokenizer)
    return directory


def inflate(text: str) -> Inflation:
    """An inflation by a short name: `residual 2^10`, `feed-forward 2^7 seed 1`, `norms seed 2`."""
    numbers = [int(number) for number in re.findall(r"\d+", text.replace("2^", ""))]
    kind = text.partition(" ")[0]
    if kind == "residual":
        return lambda config, tensors: inflate_residual(config, tensors, 2.0 ** numbers[0])
    if kind == "feed-forward":
        return lambda config, tensors: inflate_feed_forward(config, tensors, 2.0 ** numbers[0], seed=numbers[1])
    if kind == "norms":
        return lambda config, tensors: move_norm_scales(config, tensors, seed=numbers[0])
    raise ValueError(text)
