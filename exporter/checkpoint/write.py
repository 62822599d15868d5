"""Config, tensors and tokenizer -> checkpoint directory, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.checkpoint.config import CheckpointConfig
from exporter.checkpoint.read import TOKENIZER, check_shapes, check_tokenizer
from exporter.checkpoint.weights import weight_shapes
from exporter.publish import publish_directory

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["write_checkpoint"]

MAX_SHARD_BYTES = 4 << 30


def write_checkpoint(
    directory: Path,
    config: CheckpointConfig,
    tensors: Mapping[str, Tensor],
    tokenizer: Path | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint; beyond 4 GB of weights they are sharded, with an index.

    Raises CheckpointError where tensors do not fit the config, TokenizerError where the tokenizer does not, and
    OutputError where the directory exists already or cannot be written.
    """
    subject = f"checkpoint {directory}"
    check_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, weight_shapes(config), subject=subject)
    if tokenizer is not None:
        check_tokenizer(tokenizer, config.vocab_size)
    with publish_directory(directory, overwrite=overwrite) as work:
        text = json.dumps(config.model_dump(), indent=2)
        (work / "config.json").write_text(text + "\n", encoding="utf-8")
        _write_weights(work, tensors)
        if tokenizer is not None:
            shutil.copyfile(tokenizer, work / TOKENIZER)


def _write_weights(directory: Path, tensors: Mapping[str, Tensor]) -> None:
    from safetensors.torch import save_file

    shards: list[dict[str, Tensor]] = [{}]
    room = MAX_SHARD_BYTES
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = MAX_SHARD_BYTES
        shards[-1][name] = tensor
        room -= tensor.nbytes
    if len(shards) == 1:
        save_file(shards[0], directory / "model.safetensors", metadata={"format": "pt"})
        return
    weight_map = {}
    for index, shard in enumerate(shards, start=1):
        file = f"model-{index:05d}-of-{len(shards):05d}.safetensors"
        save_file(shard, directory / file, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(shard, file))
    total = sum(tensor.nbytes for tensor in tensors.values())
    content = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / "model.safetensors.index.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
