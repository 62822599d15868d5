"""A shard's file, of which any part of any tensor can be written at any time."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract.shard_layout import ShardTensor

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ShardFile"]

ALIGNMENT = 8


class ShardFile:
    """A safetensors file that has its size and its header from the start, and zeros where nothing was written yet.

    Written with pwrite, not through a mapping: a full disk is then an OSError, where a mapping would kill the process.
    """

    def __init__(self, path: Path, tensors: Sequence[ShardTensor]) -> None:
        """Begin the file `path`, anew."""
        header = _header(tensors)
        self._places: dict[str, tuple[int, int]] = {}
        end = len(header)
        for tensor in tensors:
            self._places[tensor.name] = end, tensor.num_bytes // max(1, tensor.shape[0])
            end += tensor.num_bytes
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
        try:
            os.ftruncate(self._file, end)
            self._write(header, 0)
        except BaseException:
            os.close(self._file)
            raise

    def write(self, name: str, entry: int, values: Array) -> None:
        """Write `values`, which begin at the tensor's `entry`, counted along its first axis."""
        start, entry_bytes = self._places[name]
        self._write(values.tobytes(), start + entry * entry_bytes)

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


def _header(tensors: Sequence[ShardTensor]) -> bytes:
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
