"""Tensors in safetensors files, one file or sharded with an index, read one at a time and checked before use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runtime.contract import CheckpointError, inside

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SafetensorsFiles"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class SafetensorsFiles:
    """The tensors of a directory that holds `model.safetensors` or `model.safetensors.index.json`.

    Opening reads headers alone. Raises CheckpointError for a missing, truncated or inconsistent file, and for an
    index that names a file outside the directory.
    """

    def __init__(self, directory: Path) -> None:
        from safetensors import safe_open

        self.directory = directory
        self._files: dict[str, Any] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        for path in self._paths():
            try:
                opened = safe_open(path, framework="pt")
            except Exception as error:  # safetensors raises its own class, and OSError, for one cause
                raise CheckpointError(
                    str(path), expected="a whole safetensors file", found=str(error), fix="copy the weights again"
                ) from None
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                self._files[name] = opened
                self._shapes[name] = tuple(opened.get_slice(name).get_shape())

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor, by name."""
        return dict(self._shapes)

    def tensor(self, name: str) -> Tensor:
        """One tensor, in the dtype it was stored in."""
        stored: Tensor = self._files[name].get_tensor(name)
        return stored

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)

    def _paths(self) -> list[Path]:
        if (single := self.directory / SINGLE).exists():
            return [single]
        index = self.directory / INDEX
        try:
            weight_map: dict[str, str] = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
            names = sorted(set(weight_map.values()))
        except FileNotFoundError:
            raise CheckpointError(
                f"checkpoint {self.directory}", expected=f"{SINGLE} or {INDEX}", found="neither",
                fix="copy the weights into the directory",
            ) from None
        except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
            raise CheckpointError(
                str(index), expected='a JSON object with "weight_map"', found=repr(error), fix="copy the index again"
            ) from None
        paths = [inside(self.directory, name, error=CheckpointError, subject=str(index)) for name in names]
        for path in paths:
            if not path.is_file():
                raise CheckpointError(
                    f"checkpoint {self.directory}", expected=f"the shard {path.name}", found="no such file",
                    fix="copy all shards that the index names",
                )
        return paths
