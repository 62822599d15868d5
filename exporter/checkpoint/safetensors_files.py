"""Tensors in safetensors files, one file or sharded with an index, read one at a time and checked before use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from exporter.checkpoint.weight_index import weight_paths
from runtime.contract import CheckpointError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["INDEX", "SINGLE", "SafetensorsFiles"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class SafetensorsFiles:
    """The tensors of a directory that holds `model.safetensors` or `model.safetensors.index.json`.

    Opening reads headers alone. Raises CheckpointError for a missing, truncated or inconsistent file, and for an
    index that names a file outside the directory.
    """

    def __init__(self, directory: Path) -> None:
        from safetensors import SafetensorError, safe_open

        self._files: dict[str, Any] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for path in weight_paths(directory, single=SINGLE, index=INDEX):
            try:
                opened = safe_open(path, framework="pt")
            except (SafetensorError, OSError) as error:
                raise CheckpointError(
                    str(path), expected="a whole safetensors file", found=str(error), fix="copy the weights again"
                ) from None
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                if name in self._files:
                    raise CheckpointError(
                        str(path), expected="tensors that no other shard holds", found=f"{name} a second time",
                        fix="copy the shards again, from one checkpoint",
                    )
                self._files[name] = opened
                self._shapes[name] = tuple(opened.get_slice(name).get_shape())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor, by name."""
        return dict(self._shapes)

    def tensor(self, name: str) -> Tensor:
        """One tensor, in the dtype it was stored in; mapped from the file, in memory that every call for it shares."""
        stored: Tensor = self._files[name].get_tensor(name)
        return stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)
