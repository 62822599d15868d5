"""Write one shard, passage by passage in any order, without holding it in memory."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

from glimmer_export.exporter.memory.shard_file import ShardFile
from glimmer_export.runtime.backends import Array
from glimmer_export.runtime.contract import codec_layout
from glimmer_export.runtime.contract.shard_layout import shard_tensors

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["ShardWriter"]


class ShardWriter:
    """The file of a shard whose passages' token ids are known and whose memory is still to come."""

    def __init__(self, path: Path, input_ids: list[list[int]], *, d_model: int, codec: str | None) -> None:
        """Begin the file `path`; input_ids has one list a passage."""
        self._input_ids = input_ids
        self._offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in input_ids])]).astype(np.int64)
        layout = None if codec is None else codec_layout(codec, d_model)
        self._per_token = {tensor.name for tensor in layout.per_token} if layout else set()
        self._file = ShardFile(path, shard_tensors(len(input_ids), self.num_tokens, d_model, codec))

    @property
    def num_tokens(self) -> int:
        """Token rows of the shard."""
        return int(self._offsets[-1])

    def put(self, row: int, tensors: Mapping[str, Array]) -> None:
        """Write the memory of passage `row`: its codec's tensors (tokens, ...), and (...) of the whole passage."""
        for name, values in tensors.items():
            self._file.write(name, int(self._offsets[row]) if name in self._per_token else row, values)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            stack.enter_context(self._file)
            self._file.write("offsets", 0, self._offsets)
            self._file.write("input_ids", 0, np.array(list(chain.from_iterable(self._input_ids)), np.int32))
            stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.__exit__(kind, error, trace)
