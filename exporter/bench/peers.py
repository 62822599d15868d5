"""The peers: fusion-in-decoder (Izacard and Grave 2021) by Hugging Face in torch, and as optimum exports it.

What optimum exports shares no line with our graphs or our runtime.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.bench.inputs import BenchQuestion
from glimmer_export.exporter.bench.measure import Answered, ContenderSpec
from glimmer_export.exporter.checkpoint.lazy_tensors import TensorSpec
from glimmer_export.exporter.checkpoint.safetensors_files import write_safetensors
from glimmer_export.exporter.checkpoint.t5_shape import read_t5_shape
from glimmer_export.exporter.files.publish import publish_directory
from glimmer_export.runtime.contract import MissingExtraError

if TYPE_CHECKING:
    from optimum.onnxruntime import ORTModelForSeq2SeqLM
    from torch import Tensor

    from glimmer_export.exporter.checkpoint import CheckpointConfig

__all__ = [
    "FidContender", "attention_of_t5", "export_with_optimum", "fid_model", "fid_tokens", "ort_model_from_t5",
    "write_t5",
]  # fmt: skip

TASK = "text2text-generation-with-past"


def ort_model_from_t5(t5_dir: Path, out_dir: Path) -> ORTModelForSeq2SeqLM:
    """Export the Hugging Face T5 in `t5_dir` into the new directory `out_dir` with optimum; open it on the CPU.

    A T5 alone is FiD with one passage. Raises what `export_with_optimum` raises.
    """
    export_with_optimum(t5_dir, out_dir)
    return open_ort_model(out_dir)


def export_with_optimum(t5_dir: Path, out_dir: Path) -> None:
    """Export the Hugging Face T5 in `t5_dir` into the new directory `out_dir` with optimum. Nothing is downloaded.

    Raises MissingExtraError without optimum, CheckpointError if `t5_dir` holds no T5 that we read, OutputError if
    `out_dir` exists or cannot be written.
    """
    read_t5_shape(t5_dir)
    with _quiet():
        try:
            from optimum.exporters.onnx import main_export
        except ImportError as error:
            raise _missing(error) from None
        with publish_directory(out_dir, inputs=[t5_dir]) as work:
            # optimum would compare with torch within an absolute 1e-3; tokens are compared by whoever asks for them.
            main_export(
                str(t5_dir), output=work, task=TASK, device="cpu", library_name="transformers", do_validation=False,
                local_files_only=True,
            )


def open_ort_model(directory: Path, *, threads: int | None = None) -> ORTModelForSeq2SeqLM:
    """Open what `export_with_optimum` wrote, on the CPU; `threads` of one graph run, None for ONNX Runtime's choice."""
    with _quiet():
        try:
            from onnxruntime import SessionOptions
            from optimum.onnxruntime import ORTModelForSeq2SeqLM
        except ImportError as error:
            raise _missing(error) from None
        options = SessionOptions()
        # As our own backend has it, so that a comparison of times is of the graphs.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if threads is not None:
            options.intra_op_num_threads = threads
        return ORTModelForSeq2SeqLM.from_pretrained(directory, session_options=options, local_files_only=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Hold back what optimum warns of and logs.

    Its export is the TorchScript one, which torch deprecates and which warns of every branch it freezes. optimum knows
    those branches: it exports the decoder once for each.
    """
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _missing(error: ImportError) -> MissingExtraError:
    return MissingExtraError(
        "the optimum reference", expected="optimum and optimum-onnx", found=str(error),
        fix="install glimmer-export[optimum,cpu]",
    )


def fid_tokens(
    model: ORTModelForSeq2SeqLM, input_ids: Tensor, attention_mask: Tensor, *, max_new_tokens: int
) -> list[int]:
    """Answer one question by FiD (Izacard and Grave 2021): ids and mask (k, n) -> tokens without start token and EOS.

    Each row is the question with one passage; the rows are encoded one by one and read as one sequence.
    """
    from transformers.modeling_outputs import BaseModelOutput

    states = model.encoder(input_ids=input_ids.long(), attention_mask=attention_mask.long()).last_hidden_state
    generated = model.generate(
        encoder_outputs=BaseModelOutput(states.flatten(0, 1).unsqueeze(0)),
        attention_mask=attention_mask.long().flatten().unsqueeze(0),
        max_new_tokens=max_new_tokens, do_sample=False, num_beams=1,
    )  # fmt: skip
    tokens: list[int] = generated[0, 1:].tolist()
    eos = model.config.eos_token_id
    return tokens[: tokens.index(eos)] if eos in tokens else tokens


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


def attention_of_t5() -> str:
    """`sdpa`, PyTorch's fused attention, where the installed transformers has it for T5 (5.x), else `eager`."""
    from transformers import T5PreTrainedModel

    return "sdpa" if getattr(T5PreTrainedModel, "_supports_sdpa", False) else "eager"


def fid_model(directory: Path, precision: str) -> Any:
    """A Hugging Face T5 in `fp32` or `bf16` which decodes past EOS, its attention as `attention_of_t5` says."""
    import torch
    from transformers import T5ForConditionalGeneration

    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    model: Any = T5ForConditionalGeneration.from_pretrained(
        directory, local_files_only=True, dtype=dtype, attn_implementation=attention_of_t5()
    )
    model.generation_config.eos_token_id = None
    return model.eval()


def write_t5(config: CheckpointConfig, tensors: dict[str, Tensor], directory: Path) -> None:
    """Write a checkpoint's weights as a Hugging Face T5 into an empty directory.

    Memory and live encoder become one encoder, in that order; the relative-bias table is the memory encoder's, since a
    T5 has one. What only GLIMMER has (the score head, a question encoder or reranker of its own) is left out.
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
    if part in ("score", "question_encoder", "reranker"):
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
