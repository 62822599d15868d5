"""The peers: fusion-in-decoder (Izacard and Grave 2021) by Hugging Face in torch, and as optimum exports it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.bench.contender import Answered, ContenderSpec
from glimmer_export.exporter.bench.inputs import BenchQuestion
from glimmer_export.exporter.checkpoint.lazy_tensors import TensorSpec
from glimmer_export.exporter.checkpoint.safetensors_writer import write_safetensors

if TYPE_CHECKING:
    from torch import Tensor

    from glimmer_export.exporter.checkpoint import CheckpointConfig

__all__ = ["FidContender", "fid_model", "write_t5"]

T5_FIELDS = (
    "vocab_size", "d_model", "d_kv", "d_ff", "num_heads", "num_decoder_layers", "relative_attention_num_buckets",
    "relative_attention_max_distance", "layer_norm_epsilon", "feed_forward_proj", "tie_word_embeddings",
    "pad_token_id", "eos_token_id", "decoder_start_token_id",
)  # fmt: skip


class FidContender:
    """A T5 that encodes each passage with the question and decodes from all of them at once."""

    def __init__(self, spec: ContenderSpec, model: Any) -> None:
        self._spec, self._model = spec, model

    def answer(self, batch: Sequence[BenchQuestion]) -> Answered:
        """Answer a batch; the passages of all its questions go through the encoder together."""
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        count = self._spec.num_passages
        rows = [[*question.token_ids, *ids] for question in batch for ids in question.passage_ids[:count]]
        input_ids = torch.tensor(rows)
        mask = torch.ones_like(input_ids)
        with torch.inference_mode():
            states = self._model.encoder(input_ids=input_ids, attention_mask=mask).last_hidden_state
            generated = self._model.generate(
                encoder_outputs=BaseModelOutput(states.reshape(len(batch), -1, states.shape[-1])),
                attention_mask=mask.reshape(len(batch), -1), max_new_tokens=self._spec.answer_tokens,
                do_sample=False, num_beams=1,
            )  # fmt: skip
        tokens: list[list[int]] = generated[:, 1:].tolist()
        return Answered(tokens)


def fid_model(library: str, directory: Path, threads: int) -> Any:
    """Open a T5 in torch (`hf`) or as optimum exported it (`optimum`); it never stops at EOS.

    `threads` holds for torch in the whole process.
    """
    import torch

    torch.set_num_threads(threads)
    model: Any
    if library == "optimum":
        from glimmer_export.exporter.parity.optimum_reference import open_ort_model

        model = open_ort_model(directory, threads=threads)
    else:
        from transformers import T5ForConditionalGeneration

        model = T5ForConditionalGeneration.from_pretrained(directory, local_files_only=True).eval()
    model.generation_config.eos_token_id = None
    return model


def write_t5(config: CheckpointConfig, tensors: dict[str, Tensor], directory: Path) -> None:
    """Write a checkpoint's weights as a Hugging Face T5 into an empty directory.

    Memory and live encoder become one encoder, in that order; the relative-bias table is the memory encoder's, since a
    T5 has one. What only GLIMMER has (the score head, a question encoder of its own) is left out.
    """
    import torch
    from transformers import T5Config

    shape = {name: getattr(config, name) for name in T5_FIELDS}
    num_layers = config.num_memory_layers + config.num_live_layers
    theirs: Any = T5Config(num_layers=num_layers, **shape)
    theirs.architectures = ["T5ForConditionalGeneration"]
    theirs.save_pretrained(directory)
    named = ((_t5_name(name, config.num_memory_layers), tensor) for name, tensor in tensors.items())
    weights = {name: tensor for name, tensor in named if name is not None}
    specs = {name: TensorSpec(tuple(tensor.shape), torch.float32) for name, tensor in weights.items()}
    # By our own writer: the library's file would be the user's alone, and its word for a full disk no OSError.
    floats = ((name, tensor.float()) for name, tensor in weights.items())
    write_safetensors(directory / "model.safetensors", specs, floats)


def _t5_name(name: str, num_memory_layers: int) -> str | None:
    """What T5 calls a tensor of a checkpoint; None for one that it has not."""
    part, _, rest = name.partition(".")
    if part in ("score", "question_encoder"):
        return None
    if part == "memory_encoder":
        return f"encoder.{rest}" if rest.startswith("block.") else None
    if part != "live_encoder":
        return name
    if rest.endswith("relative_attention_bias.weight"):
        return None
    if not rest.startswith("block."):
        return f"encoder.{rest}"
    _, index, layer = rest.split(".", 2)
    return f"encoder.block.{int(index) + num_memory_layers}.{layer}"
