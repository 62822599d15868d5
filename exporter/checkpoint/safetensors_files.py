"""Tensors in safetensors files, one file or sharded with an index, read and written one at a time, checked before use.

The format's own library writes a file only from all of its tensors at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.exporter.checkpoint.lazy_tensors import TensorSpec
from glimmer_export.exporter.checkpoint.weight_index import weight_paths
from glimmer_export.runtime.array_files import SafetensorsFile
from glimmer_export.runtime.contract import CheckpointError, check_regular, open_regular

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["INDEX", "SINGLE", "STORED_DTYPES", "SafetensorsFiles", "write_safetensors"]

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


class SafetensorsFiles:
    """The tensors of a directory that holds `model.safetensors` or `model.safetensors.index.json`.

    Opening reads headers alone. Raises CheckpointError for a missing, truncated or inconsistent file, and for an
    index that names a file outside the directory.
    """

    def __init__(self, directory: Path) -> None:
        self._files: dict[str, SafetensorsFile] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._places: dict[str, _Place] = {}
        for path in weight_paths(directory, single=SINGLE, index=INDEX):
            check_regular(path, error=CheckpointError, subject=str(path), fix="copy the weights again")
            opened = SafetensorsFile(path, partial(_damaged, path), framework="pt")
            for name in opened.names:
                if name in self._files:
                    raise CheckpointError(
                        str(path), expected="tensors that no other shard holds", found=f"{name} a second time",
                        fix="copy the shards again, from one checkpoint",
                    )
                self._files[name] = opened
                self._shapes[name] = opened.shape(name)
            self._places |= _places(path)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shape of each tensor, by name."""
        return dict(self._shapes)

    def tensor(self, name: str) -> Tensor:
        """One tensor, in the dtype it was stored in, in memory of its own.

        It is read, not mapped: what was mapped stays in memory as long as the file is open. Raises CheckpointError for
        a dtype that torch has not.
        """
        import numpy as np
        import torch

        place = self._places[name]
        if place.dtype not in STORED_DTYPES:

            def refused(_: str) -> CheckpointError:
                return CheckpointError(
                    f"{place.path}, tensor {name}", expected="float32, float16 or bfloat16", found=place.dtype,
                    fix="save the weights in one of these",
                )

            stored: Tensor = self._files[name].tensor(name, refused)
            return stored
        content = np.fromfile(place.path, np.uint8, place.num_bytes, offset=place.offset)
        values = torch.from_numpy(content).view(getattr(torch, STORED_DTYPES[place.dtype]))
        return values.reshape(self._shapes[name])

    def specs(self) -> dict[str, TensorSpec]:
        """Shape and dtype of each tensor, by name."""
        import torch

        return {
            name: TensorSpec(shape, getattr(torch, STORED_DTYPES[self._places[name].dtype]))
            for name, shape in self._shapes.items() if self._places[name].dtype in STORED_DTYPES
        }

    def __iter__(self) -> Iterator[str]:
        return iter(self._shapes)


def _damaged(path: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        str(path), expected="a whole safetensors file", found=reason, fix="copy the weights again"
    )


@dataclass(frozen=True)
class _Place:
    """Where in a file a tensor's content stands."""

    path: Path
    dtype: str
    offset: int
    num_bytes: int


def _places(path: Path) -> dict[str, _Place]:
    """From the header of a file that has been opened, and so checked, by the format's library."""
    with open_regular(path, error=CheckpointError, subject=str(path), fix="copy the weights again") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header: dict[str, Any] = json.loads(stream.read(size))
    header.pop("__metadata__", None)
    return {
        name: _Place(path, entry["dtype"], 8 + size + entry["data_offsets"][0],
                     entry["data_offsets"][1] - entry["data_offsets"][0])
        for name, entry in header.items()
    }


STORED_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The format's names of the dtypes that models are stored in, and torch's."""
ALIGNMENT = 8
"""Of the first tensor; so that all are aligned, those of the widest dtype come first."""


def write_safetensors(path: Path, specs: Mapping[str, TensorSpec], tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Write the tensors of `specs`, which come in that order, widest dtype first."""
    import torch

    names = {getattr(torch, dtype): name for name, dtype in STORED_DTYPES.items()}
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, spec in specs.items():
        begin, end = end, end + spec.num_bytes
        header[name] = {"dtype": names[spec.dtype], "shape": list(spec.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % ALIGNMENT)
    with path.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for name, (expected, tensor) in zip(specs, tensors, strict=True):
            if expected != name or TensorSpec(tuple(tensor.shape), tensor.dtype) != specs[name]:
                raise ValueError(f"tensor {expected} in the place of {name}, or not as it was announced")
            stream.write(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
