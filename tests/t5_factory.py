"""Tiny Hugging Face T5s with random weights, and the ways their weights are stored."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration
from transformers.utils import logging

from glimmer_export.exporter.checkpoint import CheckpointConfig
from glimmer_export.exporter.stages import GlimmerModel, model_from_weights

__all__ = [
    "STORAGE", "VARIANTS", "fid_from_t5", "greedy_tokens", "make_t5", "random_mask", "random_tokens", "save_t5",
]  # fmt: skip

logging.disable_progress_bar()  # of saving, since transformers 5: it would stand among a command's errors

TINY = {
    "vocab_size": 96, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4,
    "decoder_start_token_id": 0, "dropout_rate": 0.1,
}
VARIANTS = {
    "v1.0": {"feed_forward_proj": "relu", "tie_word_embeddings": True},
    "v1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    # T5-small v1.1, T5-3B and T5-11B have heads that together are narrower or wider than the model.
    "narrow heads": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False, "num_heads": 3, "d_kv": 8},
    "wide heads": {"feed_forward_proj": "relu", "tie_word_embeddings": True, "num_heads": 4, "d_kv": 16},
}
STORAGE = ("safetensors", "sharded safetensors", "pickle", "legacy pickle", "sharded pickle")


def make_t5(variant: str, *, seed: int = 0, **changes: object) -> T5ForConditionalGeneration:
    """A random model, in evaluation mode; norms and bias tables are random too, so that none can stand for another."""
    torch.manual_seed(seed)
    fields = {**TINY, **VARIANTS[variant], **changes}
    model = T5ForConditionalGeneration(T5Config(**fields))
    if not fields["tie_word_embeddings"]:
        # transformers 5 makes every T5 tied, and unties it where a file has two matrices.
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.shared.weight))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "layer_norm" in name:
                parameter.uniform_(0.5, 1.5)
            elif "relative_attention_bias" in name:
                parameter.normal_()
        if fields["tie_word_embeddings"]:
            model.shared.weight.mul_(0.2)  # or each token would be followed by itself, whatever is read
    return model.requires_grad_(False).eval()


def fid_from_t5(model: T5ForConditionalGeneration) -> GlimmerModel:
    """The FiD that reads a text as this T5 does: question and passage are one text. With copies of its weights."""
    theirs = model.config
    same = (
        "vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_decoder_layers", "relative_attention_num_buckets",
        "relative_attention_max_distance", "layer_norm_epsilon", "feed_forward_proj", "decoder_start_token_id",
    )  # fmt: skip
    config = CheckpointConfig(
        architecture="fid", num_memory_layers=0, num_stage_a_layers=0, num_stage_b_layers=theirs.num_layers,
        tie_word_embeddings=theirs.feed_forward_proj == "relu", question_layout="joined",
        input_template="{question} {text}", **{name: getattr(theirs, name) for name in same},
    )
    weights = {
        name.replace("encoder.", "live_encoder.", 1) if name.startswith("encoder.") else name: tensor.clone()
        for name, tensor in model.state_dict().items()
        if not name.endswith("embed_tokens.weight") and not (name == "lm_head.weight" and config.tie_word_embeddings)
    }
    return model_from_weights(config, weights)


def save_t5(model: T5ForConditionalGeneration, directory: Path, storage: str = "safetensors") -> Path:
    """Write the model in one of the ways of STORAGE; pickles as transformers wrote them before release 5."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers, about generation options
        size = {"max_shard_size": "20KB"} if storage.startswith("sharded") else {}
        model.save_pretrained(directory, **size)
    if "pickle" in storage:
        _pickle_weights(model, directory, storage)
    return directory


def _pickle_weights(model: T5ForConditionalGeneration, directory: Path, storage: str) -> None:
    for path in directory.glob("model*.safetensors*"):
        path.unlink()
    weights = model.state_dict()
    if storage == "sharded pickle":
        weight_map = {}
        for number, (name, tensor) in enumerate(weights.items(), start=1):
            weight_map[name] = f"pytorch_model-{number:05d}-of-{len(weights):05d}.bin"
            torch.save({name: tensor.clone()}, directory / weight_map[name])
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        (directory / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    else:
        new = storage != "legacy pickle"
        torch.save(weights, directory / "pytorch_model.bin", _use_new_zipfile_serialization=new)


def random_tokens(shape: tuple[int, ...], *, seed: int, vocab_size: int = 96) -> Tensor:
    """Token ids other than padding and EOS."""
    return torch.randint(2, vocab_size, shape, generator=torch.Generator().manual_seed(seed))


def random_mask(shape: tuple[int, ...], *, seed: int) -> Tensor:
    """Masks with holes anywhere, their first token kept."""
    mask = (torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.3).long()
    mask[..., 0] = 1
    return mask


def greedy_tokens(model: T5ForConditionalGeneration, steps: int, **inputs: object) -> list[list[int]]:
    """Hugging Face's own greedy decoding, the start token included."""
    return model.generate(**inputs, max_new_tokens=steps, do_sample=False, num_beams=1).tolist()
