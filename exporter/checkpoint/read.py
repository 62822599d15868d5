"""Checkpoint directory -> validated config and tensors."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from glimmer_export.exporter.checkpoint.config import CheckpointConfig, read_config
from glimmer_export.exporter.checkpoint.lazy_tensors import LazyTensors
from glimmer_export.exporter.checkpoint.safetensors_files import SafetensorsFiles
from glimmer_export.exporter.checkpoint.weights import weight_shapes
from glimmer_export.runtime.contract import CheckpointError, is_there

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


__all__ = ["Checkpoint", "check_shapes", "check_tokenizer", "check_values", "open_tensors", "read_checkpoint"]

TOKENIZER = "tokenizer.json"


@dataclass(frozen=True)
class Checkpoint:
    """A validated checkpoint, whose tensors are read from its files at each look-up.

    They keep the dtype they were stored in (float32, float16 or bfloat16).
    """

    directory: Path
    config: CheckpointConfig
    tensors: LazyTensors
    tokenizer: Path | None

    def __str__(self) -> str:
        return f"checkpoint {self.directory}"


def read_checkpoint(directory: Path) -> Checkpoint:
    """Read a checkpoint directory; every tensor's name and shape is checked before one is loaded.

    Raises CheckpointError (config, missing or unexpected tensor, shape, dtype, NaN or infinity, truncated file) and
    TokenizerError (unreadable, or more tokens than the embedding has rows).
    """
    config = read_config(directory)
    files = SafetensorsFiles(directory)
    subject = f"checkpoint {directory}"
    check_shapes(files.shapes(), weight_shapes(config), subject=subject)
    for name in files:
        check_values(name, files.tensor(name), subject=subject)
    tensors = LazyTensors(files.specs(), files.tensor)
    path = directory / TOKENIZER
    if not is_there(path):
        return Checkpoint(directory, config, tensors, None)
    check_tokenizer(path, config.vocab_size)
    return Checkpoint(directory, config, tensors, path)


def open_tensors(directory: Path) -> LazyTensors:
    """The tensors of a checkpoint that has been read before: nothing is checked again."""
    files = SafetensorsFiles(directory)
    return LazyTensors(files.specs(), files.tensor)


def check_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, tuple[int, ...]], *, subject: str
) -> None:
    """Raise CheckpointError for the first tensor that is missing, misshapen or unexpected."""
    for name, shape in expected.items():
        if name not in found:
            raise CheckpointError(
                subject, expected=f"a tensor {name} of shape {list(shape)}", found="none of that name",
                fix="check the layer counts in config.json, or copy the weights again",
            )
        if tuple(found[name]) != shape:
            raise CheckpointError(
                f"{subject}, tensor {name}", expected=f"shape {list(shape)}", found=str(list(found[name])),
                fix="make config.json agree with the weights",
            )
    if unexpected := sorted(set(found) - set(expected)):
        raise CheckpointError(
            subject, expected="only the tensors its config names",
            found=f"{len(unexpected)} more, the first {unexpected[0]}", fix="make config.json agree with the weights",
        )


def check_values(name: str, tensor: Tensor, *, subject: str) -> None:
    """Raise CheckpointError for a dtype that no model is computed in, and for NaN or infinity."""
    import torch

    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        raise CheckpointError(
            f"{subject}, tensor {name}", expected="float32, float16 or bfloat16", found=str(tensor.dtype),
            fix="save the weights in one of these",
        )
    if not bool(torch.isfinite(tensor).all()):
        raise CheckpointError(
            f"{subject}, tensor {name}", expected="finite numbers", found="NaN or infinity",
            fix="take a checkpoint from before the training diverged",
        )


def check_tokenizer(tokenizer: Path | bytes, vocab_size: int) -> None:
    """Raise TokenizerError if a tokenizer.json cannot be read, or can give an id the embedding has no row for."""
    from glimmer_export.runtime.text import read_tokenizer

    subject = "the tokenizer" if isinstance(tokenizer, bytes) else f"tokenizer {tokenizer}"
    read_tokenizer(tokenizer, vocab_size, subject=subject, fix="copy the tokenizer that the model was trained with")
