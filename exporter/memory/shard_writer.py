"""Write one shard as a safetensors file, passage by passage in any order, without holding it in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.backends import Array
from runtime.contract import codec_layout
from runtime.contract.shard_layout import ShardTensor, shard_tensors

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ShardWriter"]

ALIGNMENT = 8


class ShardWriter:
    """The file of a shard whose passages' token ids are known and whose memory is still to come.

    Written with pwrite, not through a mapping: a full disk is then an OSError, where a mapping would kill the process.
    """

    def __init__(self, path: Path, input_ids: list[list[int]], *, d_model: int, codec: str | None) -> None:
        """Begin the file `path` with everything but the memory; input_ids has one list a passage."""
        self._offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in input_ids])]).astype(np.int64)
        tensors = shard_tensors(len(input_ids), int(self._offsets[-1]), d_model, codec)
        layout = None if codec is None else codec_layout(codec, d_model)
        self._per_token = {tensor.name: tensor.num_bytes for tensor in layout.per_token} if layout else {}
        header = _header(tensors)
        self._starts: dict[str, int] = {}
        end = len(header)
        for tensor in tensors:
            self._starts[tensor.name] = end
            end += tensor.num_bytes
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        try:
            os.ftruncate(self._file, end)
            self._write(header, 0)
            self._write(self._offsets.tobytes(), self._starts["offsets"])
            self._write(np.array(list(chain.from_iterable(input_ids)), np.int32).tobytes(), self._starts["input_ids"])
        except BaseException:
            os.close(self._file)
            raise

    @property
    def num_tokens(self) -> int:
        """Token rows of the shard."""
        return int(self._offsets[-1])

    def put(self, row: int, tensors: Mapping[str, Array]) -> None:
        """Write the memory of passage `row`: its codec's tensors (tokens, ...), and (...) of the whole passage."""
        for name, values in tensors.items():
            content, token_bytes = values.tobytes(), self._per_token.get(name)
            before = row * len(content) if token_bytes is None else int(self._offsets[row]) * token_bytes
            self._write(content, self._starts[name] + before)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                os.fsync(self._file)
        finally:
            os.close(self._file)

    def _write(self, content: bytes, position: int) -> None:
        view = memoryview(content)
        while view:
            written = os.pwrite(self._file, view, position)
            view, position = view[written:], position + written


def _header(tensors: tuple[ShardTensor, ...]) -> bytes:
    """The safetensors header: its length in eight bytes, then JSON, padded with spaces to align the data."""
    entries: dict[str, Any] = {}
    begin = 0
    for tensor in tensors:
        end = begin + tensor.num_bytes
        entries[tensor.name] = {
            "dtype": tensor.safetensors_dtype, "shape": list(tensor.shape), "data_offsets": [begin, end],
        }
        begin = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    return len(text).to_bytes(8, "little") + text
