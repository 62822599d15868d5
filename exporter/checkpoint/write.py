"""Config, tensors and tokenizer -> checkpoint directory, whole or not at all; and whether one is there already."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.checkpoint.config import CheckpointConfig
from glimmer_export.exporter.checkpoint.lazy_tensors import LazyTensors, TensorSpec, specs_of
from glimmer_export.exporter.checkpoint.read import TOKENIZER, check_shapes, check_tokenizer
from glimmer_export.exporter.checkpoint.safetensors_files import INDEX, SINGLE, SafetensorsFiles, write_safetensors
from glimmer_export.exporter.checkpoint.tokenizer import tokenizer_configs
from glimmer_export.exporter.checkpoint.weights import weight_shapes
from glimmer_export.exporter.files.publish import publish_directory
from glimmer_export.runtime.contract import CheckpointError, TokenizerError, read_limited
from glimmer_export.runtime.contract.files import MAX_TOKENIZER_BYTES

if TYPE_CHECKING:
    from torch import Tensor

    from glimmer_export.exporter.checkpoint.config import CheckpointConfig

__all__ = ["is_written", "stored_order", "text_files", "write_checkpoint"]

MAX_SHARD_BYTES = 4 << 30


def write_checkpoint(
    directory: Path,
    config: CheckpointConfig,
    tensors: Mapping[str, Tensor],
    tokenizer: Path | bytes | None = None,
    *,
    beside: Mapping[str, bytes] | None = None,
    overwrite: bool = False,
    on_tensor: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Write a checkpoint, one tensor at a time; beyond 4 GB of weights they are sharded, with an index.

    `tokenizer` is a tokenizer.json, or its content; beside it go the files by which transformers knows what pads and
    what ends a text. `beside` are files that say how it came about, by their paths in it. `on_tensor(index, count)` is
    called before each tensor.

    Raises CheckpointError if tensors do not fit the config, TokenizerError if the tokenizer does not, and
    OutputError if the directory exists already or cannot be written.
    """
    subject = f"checkpoint {directory}"
    specs = specs_of(tensors)
    check_shapes({name: spec.shape for name, spec in specs.items()}, weight_shapes(config), subject=subject)
    if tokenizer is not None:
        check_tokenizer(tokenizer, config.vocab_size)
    with publish_directory(directory, overwrite=overwrite) as work:
        content = _read(tokenizer) if isinstance(tokenizer, Path) else tokenizer
        for name, text in text_files(config, content).items():
            (work / name).write_bytes(text)
        for name, text in (beside or {}).items():
            (work / name).parent.mkdir(parents=True, exist_ok=True)
            (work / name).write_bytes(text)
        _write_weights(work, tensors, on_tensor)


def text_files(config: CheckpointConfig, tokenizer: bytes | None) -> dict[str, bytes]:
    """The content of every file but the weights, by its name."""
    files = {"config.json": _json(config.model_dump())}
    if tokenizer is not None:
        files[TOKENIZER] = tokenizer
        files |= {name: _json(settings) for name, settings in tokenizer_configs(tokenizer, config).items()}
    return files


def stored_order(tensors: Mapping[str, Tensor]) -> tuple[dict[str, TensorSpec], Iterator[tuple[str, Tensor]]]:
    """Tensors as they come: those of a stream in its own order, others by dtype and name; and first what is known."""
    specs = dict(specs_of(tensors))
    if isinstance(tensors, LazyTensors):
        return specs, tensors.stream()
    specs = dict(sorted(specs.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))
    return specs, ((name, tensors[name]) for name in specs)


def _read(tokenizer: Path) -> bytes:
    return read_limited(
        tokenizer, limit_bytes=MAX_TOKENIZER_BYTES, error=TokenizerError, subject=f"tokenizer {tokenizer}",
        expected="a tokenizer.json", fix="copy it again",
    )


def _write_weights(
    directory: Path, tensors: Mapping[str, Tensor], on_tensor: Callable[[int, int], None]
) -> None:
    specs, stream = stored_order(tensors)
    stream = _told(stream, len(specs), on_tensor)
    shards: list[dict[str, TensorSpec]] = [{}]
    room = MAX_SHARD_BYTES
    for name, spec in specs.items():
        if spec.num_bytes > room and shards[-1]:
            shards.append({})
            room = MAX_SHARD_BYTES
        shards[-1][name] = spec
        room -= spec.num_bytes
    if len(shards) == 1:
        write_safetensors(directory / SINGLE, shards[0], stream)
        return
    weight_map = {}
    for index, shard in enumerate(shards, start=1):
        file = f"model-{index:05d}-of-{len(shards):05d}.safetensors"
        write_safetensors(directory / file, shard, islice(stream, len(shard)))
        weight_map.update(dict.fromkeys(shard, file))
    total = sum(spec.num_bytes for spec in specs.values())
    content = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (directory / INDEX).write_bytes(_json(content))


def _json(content: dict[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def _told(
    stream: Iterator[tuple[str, Tensor]], count: int, on_tensor: Callable[[int, int], None]
) -> Iterator[tuple[str, Tensor]]:
    for index in range(count):
        on_tensor(index, count)
        yield next(stream)


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
