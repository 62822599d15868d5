"""Whether a checkpoint that is there is the one that would be written: a command that was killed had got so far."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from glimmer_export.exporter.checkpoint.read import TOKENIZER
from glimmer_export.exporter.checkpoint.safetensors_files import SafetensorsFiles
from glimmer_export.exporter.checkpoint.write import stored_order, text_files
from glimmer_export.runtime.contract import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

    from glimmer_export.exporter.checkpoint.config import CheckpointConfig

__all__ = ["is_written"]


def is_written(
    directory: Path, config: CheckpointConfig, tensors: Mapping[str, Tensor], tokenizer: bytes | None
) -> bool:
    """Whether a directory holds this checkpoint, to the last bit; files of others do not count.

    What tells soonest is looked at first: the config, then names and shapes, then one tensor after the other.
    """
    try:
        for name, content in text_files(config, tokenizer).items():
            if (directory / name).read_bytes() != content:
                return False
        if tokenizer is None and (directory / TOKENIZER).exists():
            return False
        there = SafetensorsFiles(directory)
        specs, stream = stored_order(tensors)
        return dict(there.specs()) == dict(specs) and all(_same(there.tensor(name), made) for name, made in stream)
    except (OSError, CheckpointError):
        return False


def _same(there: Tensor, made: Tensor) -> bool:
    import torch

    first, second = (tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (there, made))
    return torch.equal(first, second)
