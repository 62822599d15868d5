"""Write one shard, passage by passage in any order, without holding it in memory."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract import codec_layout
from glimmer_export.runtime.contract.shard_layout import CHECKSUMS, ShardTensor, passage_checksum, shard_tensors

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ShardFile", "ShardWriter"]

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


class ShardWriter:
    """A shard, passage by passage in any order, with the checksum of each."""

    def __init__(self, path: Path, input_ids: Sequence[Sequence[int]], *, d_model: int, codec: str | None) -> None:
        """Begin the file `path`; input_ids has one list a passage, an empty one where there is no passage any more."""
        self._offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in input_ids])]).astype(np.int64)
        self._ids = np.fromiter(chain.from_iterable(input_ids), np.int32, count=self.num_tokens)
        layout = None if codec is None else codec_layout(codec, d_model)
        self._per_token = {tensor.name for tensor in layout.per_token} if layout else set()
        tensors = shard_tensors(len(input_ids), self.num_tokens, d_model, codec)
        self._names = [tensor.name for tensor in tensors if tensor.entry is not None]
        bounds = zip(self._offsets, self._offsets[1:], strict=False)
        self._checksums = np.array([passage_checksum([self._ids[begin:end]]) for begin, end in bounds], np.uint32)
        self._file = ShardFile(path, tensors)

    @property
    def num_tokens(self) -> int:
        """Token rows of the shard."""
        return int(self._offsets[-1])

    def put(self, row: int, tensors: Mapping[str, Array]) -> None:
        """Write the memory of passage `row`: its codec's tensors (tokens, ...), and (...) of the whole passage.

        Once for each passage.
        """
        begin, end = self._offsets[row : row + 2]
        parts = [self._ids[begin:end]]
        for name in self._names:
            parts.append(np.ascontiguousarray(tensors[name]))
            self._file.write(name, int(begin) if name in self._per_token else row, parts[-1])
        self._checksums[row] = passage_checksum(parts)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._file)
            self._file.write("offsets", 0, self._offsets)
            self._file.write("input_ids", 0, self._ids)
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._file.write(CHECKSUMS, 0, self._checksums)
        except BaseException as failure:
            self._file.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._file.__exit__(kind, error, trace)
