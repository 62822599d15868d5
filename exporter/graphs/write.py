"""ONNX graphs -> small files, and one file beside them that holds each of their weights once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from glimmer_export.runtime.contract import FileEntry

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = [
    "ALIGNMENT", "EXTERNAL_BYTES", "WEIGHTS", "WEIGHTS_DIGEST", "WeightsFile", "WrittenGraph", "weights_file",
    "write_graph",
]  # fmt: skip

WEIGHTS = "weights.data"
ALIGNMENT = 4096
"""Of offsets, in bytes: a page, so that a tensor is mapped as it lies."""


class WeightsFile:
    """Takes tensors one at a time; one whose bytes are there already is found again, whatever its name and shape."""

    def __init__(self, path: Path, stream: IO[bytes]) -> None:
        self.path = path
        self._stream = stream
        self._size = 0
        self._digest = hashlib.sha256()
        self._places: dict[str, int] = {}
        self._known: dict[object, str] = {}

    def place(self, tensor: ir.TensorProtocol) -> tuple[ir.ExternalTensor, str]:
        """The tensor as it stands in the file, written if need be, and the SHA-256 of its bytes."""
        import onnx_ir

        from glimmer_export.calibration.passes.edit import CONTENT

        known = tensor.meta.get(CONTENT) if isinstance(tensor, onnx_ir.LazyTensor) else None
        sha256 = self._known.get(known) if known is not None else None
        if sha256 is None:
            sha256 = self._write(tensor)
        if known is not None:
            self._known[known] = sha256
        found = onnx_ir.ExternalTensor(
            self.path.name, self._places[sha256], tensor.nbytes, tensor.dtype,
            shape=onnx_ir.Shape(tensor.shape.numpy()), name=str(tensor.name), base_dir=self.path.parent,
        )
        return found, sha256

    def flush(self) -> None:
        """Let readers see what was placed."""
        self._stream.flush()

    def entry(self, bundle: Path) -> FileEntry:
        """How a manifest names the file as it now is."""
        return FileEntry(self.path.relative_to(bundle).as_posix(), self._size, self._digest.hexdigest())

    def _write(self, tensor: ir.TensorProtocol) -> str:
        content = np.ascontiguousarray(tensor.numpy()).reshape(-1).view(np.uint8).data
        sha256 = hashlib.sha256(content).hexdigest()
        if sha256 not in self._places:
            self._append(bytes(-self._size % ALIGNMENT))
            self._places[sha256] = self._size
            self._append(content)
        return sha256

    def _append(self, content: bytes | memoryview) -> None:
        self._stream.write(content)
        self._digest.update(content)
        self._size += len(content)


@contextmanager
def weights_file(directory: Path) -> Iterator[WeightsFile]:
    """Open the weights file of the graphs in `directory`, to be written from its beginning."""
    path = directory / WEIGHTS
    with path.open("wb") as stream:
        yield WeightsFile(path, stream)


EXTERNAL_BYTES = 1024
"""Tensors of this size and more lie in the weights file: less is not worth a page of its own."""
WEIGHTS_DIGEST = "weights_sha256"
"""A graph's note of its weights' content, so that the digest of its file covers them wherever they lie."""


@dataclass(frozen=True)
class WrittenGraph:
    """A graph's own file as it was written, its size, and the bytes that it reads from the weights file."""

    path: Path
    own_bytes: int
    weight_bytes: int

    @property
    def num_bytes(self) -> int:
        """What the graph takes where it shares nothing."""
        return self.own_bytes + self.weight_bytes


def write_graph(model: ir.Model, name: str, weights: WeightsFile) -> WrittenGraph:
    """Write `name.onnx` beside the weights file; the model's large tensors are those of the file from then on."""
    import onnx_ir

    digest, placed = hashlib.sha256(), {}
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None:
            continue
        if tensor.nbytes >= EXTERNAL_BYTES:
            external, sha256 = weights.place(tensor)
            digest.update(f"{value.name} {sha256}\n".encode())
            placed[external.offset] = external.nbytes
            value.const_value = external
        elif isinstance(tensor, onnx_ir.ExternalTensor):
            value.const_value = onnx_ir.tensor(np.array(tensor.numpy()), name=str(tensor.name))
    model.metadata_props[WEIGHTS_DIGEST] = digest.hexdigest()
    path = weights.path.with_name(f"{name}.onnx")
    onnx_ir.save(model, path)
    weights.flush()
    return WrittenGraph(path, path.stat().st_size, sum(placed.values()))
