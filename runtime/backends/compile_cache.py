"""Where a backend may keep what it compiled of a graph: a directory of its own for each that computes otherwise.

`DIR/<key>/`, whose key is a digest over all that the compiled graph hangs on: the graph and, by the bundle's manifest,
its weights; the releases of openvino and of this package; the CPU and its instructions; precision and threads. What
lies there is loaded as it is, so it must be a directory that nobody else writes. Nothing in it is ever needed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import tempfile
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from glimmer_export.runtime.contract import MANIFEST, file_digest, is_there
from glimmer_export.runtime.cpu_kind import cpu_flags

__all__ = ["CompileCache"]

DISTRIBUTIONS = ("glimmer-export", "openvino")
OWN = 0o700


class CompileCache:
    """A directory for compiled graphs of one bundle; one that cannot be written is said once, and left out."""

    def __init__(self, directory: Path, bundle: Path | None) -> None:
        self._directory, self._bundle = directory, bundle
        self._said = False

    def place(self, graph: Path, precision: str, threads: int) -> Path | None:
        """The directory for a graph file, made if it is not there; None if it cannot be written."""
        place = self._directory / self._key(graph, precision, threads)
        try:
            place.mkdir(OWN, parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=place):
                return place
        except OSError as reason:
            if not self._said:
                self._said = True
                warnings.warn(
                    f"compile cache {self._directory}: {reason.strerror}; graphs are compiled at every start",
                    stacklevel=2,
                )
            return None

    def _key(self, graph: Path, precision: str, threads: int) -> str:
        parts = [
            file_digest(graph), *self._weights(graph), *map(_version, DISTRIBUTIONS), platform.machine(),
            platform.processor(), *sorted(cpu_flags()), precision, str(threads),
        ]  # fmt: skip
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def _weights(self, graph: Path) -> list[str]:
        """Digests that tell the weights: the manifest's, which has theirs; without one, those of what is beside it."""
        if self._bundle is not None and self._bundle in graph.parents and is_there(self._bundle / MANIFEST):
            return [file_digest(self._bundle / MANIFEST)]
        return [file_digest(path) for path in sorted(graph.parent.iterdir()) if path.is_file() and path != graph]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return os.fspath(Path(__file__).parent)
