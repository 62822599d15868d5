"""Config, tensors and tokenizer -> checkpoint directory, whole or not at all."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from exporter.checkpoint.config import CheckpointConfig
from exporter.checkpoint.read import TOKENIZER, check_shapes, check_tokenizer
from exporter.checkpoint.safetensors_files import INDEX, SINGLE
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
    tokenizer: Path | bytes | None = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a checkpoint; beyond 4 GB of weights they are sharded, with an index.

    `tokenizer` is a tokenizer.json, or its content.

    Raises CheckpointError where tensors do not fit the config, TokenizerError where the tokenizer does not, and
    OutputError where the directory exists already or cannot be written.
    """
    subject = f"checkpoint {directory}"
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    check_shapes(shapes, weight_shapes(config), subject=subject)
    if tokenizer is not None:
        check_tokenizer(tokenizer, config.vocab_size)
    with publish_directory(directory, overwrite=overwrite) as work:
        text = json.dumps(config.model_dump(), indent=2)
        (work / "config.json").write_text(text + "\n", encoding="utf-8")
        _write_weights(work, tensors)
        if tokenizer is not None:
            (work / TOKENIZER).write_bytes(tokenizer if isinstance(tokenizer, bytes) else tokenizer.read_bytes())


def _write_weights(directory: Path, tensors: Mapping[str, Tensor]) -> None:
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
        _save(shards[0], directory / SINGLE)
        return
    weight_map = {}
    for index, shard in enumerate(shards, start=1):
        file = f"model-{index:05d}-of-{len(shards):05d}.safetensors"
        _save(shard, directory / file)
        weight_map.update(dict.fromkeys(shard, file))
    total = sum(tensor.nbytes for tensor in tensors.values())
    content = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / INDEX).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    """Save one shard; safetensors hides the system's error number, without which a full disk has no name, in a text."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(tensors, path, metadata={"format": "pt"})
        path.chmod(0o644)  # safetensors writes for its owner alone
    except SafetensorError as error:
        if number := re.search(r"\(os error (\d+)\)", str(error)):
            raise OSError(int(number.group(1)), str(error), str(path)) from error
        raise
