"""Kernels that TensorRT-RTX compiled on this device, kept from one process to the next."""

from __future__ import annotations

import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

from glimmer_export.runtime.contract.files import read_file

__all__ = ["RuntimeCache", "runtime_cache_path"]

MAX_CACHE_BYTES = 1 << 30
"""Kernels of one graph take some megabytes; what is larger is not ours."""


def runtime_cache_path(engine_sha256: str, fingerprint: str) -> Path:
    """Where the kernels of an engine are kept: in the user's cache, as a bundle may be read-only."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "glimmer-export" / "tensorrt-rtx" / f"{fingerprint}-{engine_sha256[:32]}.bin"


def _read(path: Path) -> bytes:
    """What is kept; nothing where there is none, or it cannot be read: it is made anew then."""
    try:
        return read_file(path, MAX_CACHE_BYTES)
    except OSError:
        return b""


class RuntimeCache:
    """An engine's compiled kernels and the file that keeps them. What the library refuses is compiled anew."""

    def __init__(self, path: Path, config: Any) -> None:
        self._path = path
        self._cache = config.create_runtime_cache()
        self._read = _read(path)
        if self._read:
            self._cache.deserialize(self._read)
        config.set_runtime_cache(self._cache)

    def keep(self) -> None:
        """Write the file where something was compiled; where it cannot be written, the next process warns and waits."""
        serialized = self._cache.serialize()
        content = b"" if serialized is None else bytes(serialized)
        if content in (b"", self._read):
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            descriptor, name = tempfile.mkstemp(dir=self._path.parent)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(content)
                Path(name).replace(self._path)
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as reason:
            warnings.warn(f"kernels compiled here are not kept for the next process: {reason}", stacklevel=2)
