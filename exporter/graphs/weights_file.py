"""The weights of a bundle's graphs in one file beside them: each content once, whichever graphs it serves."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from glimmer_export.runtime.contract import FileEntry

if TYPE_CHECKING:
    import onnx_ir as ir

__all__ = ["ALIGNMENT", "WEIGHTS", "WeightsFile", "weights_file"]

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
