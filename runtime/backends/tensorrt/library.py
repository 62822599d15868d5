"""TensorRT or TensorRT-RTX: one Python API, less what differs between the two and their versions.

Kernels that TensorRT-RTX compiled on this device are kept from one process to the next.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from glimmer_export.runtime.backends.cuda_libraries import INSTALL_GPU
from glimmer_export.runtime.contract import BackendError, BundleError
from glimmer_export.runtime.contract.files import read_file

__all__ = ["Library", "LoadedEngine", "check_installed", "runtime_cache_path"]

MAX_CACHE_BYTES = 1 << 30
"""Kernels of one graph take some megabytes; what is larger is not ours."""
OLDEST = (10, 3)
BEYOND = (12, 0)
"""Versions of `tensorrt` that are served: from JetPack 6.2's to the last major one there is."""
INSTALL = {
    "tensorrt": f"{INSTALL_GPU}; on a Jetson it comes with JetPack: apt install python3-libnvinfer",
    "tensorrt_rtx": "pip install tensorrt-rtx-cu12",
}


def runtime_cache_path(engine_sha256: str, fingerprint: str) -> Path:
    """Where the kernels of an engine are kept: in the user's cache, as a bundle may be read-only."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "glimmer-export" / "tensorrt-rtx" / f"{fingerprint}-{engine_sha256[:32]}.bin"


def _read(path: Path) -> bytes:
    """What is kept; nothing if there is none, or it cannot be read: it is made anew then."""
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
        """Write the file where something was compiled; if it cannot be written, the next process warns and waits."""
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


def check_installed(name: str) -> None:
    """Raise BackendError if the package of a library is not there; it is not loaded."""
    if importlib.util.find_spec(name) is None:
        raise BackendError(
            f"backend {name.replace('_', '-')}", expected=f"the package {name}", found="none",
            fix=f"install it: {INSTALL[name]}",
        )


class Library:
    """The module `tensorrt` or `tensorrt_rtx`, and its runtime."""

    def __init__(self, name: str) -> None:
        """Raises BackendError if the package cannot be loaded, or is of another version."""
        self.name = name
        subject = f"backend {name.replace('_', '-')}"
        try:
            self.trt: Any = importlib.import_module(name)
        except (ImportError, OSError) as reason:  # OSError: a shared library that is not there
            raise BackendError(
                subject, expected=f"a package {name} that loads", found=str(reason),
                fix=f"install it again, whole: {INSTALL[name]}",
            ) from None
        self.version: str = self.trt.__version__
        if name == "tensorrt" and not OLDEST <= tuple(map(int, self.version.split(".")[:2])) < BEYOND:
            raise BackendError(
                subject, expected="TensorRT 10.3 to 11", found=self.version, fix="install one of these versions"
            )
        self._runtime = self.trt.Runtime(self.trt.Logger(self.trt.Logger.ERROR))

    @property
    def specializes(self) -> bool:
        """Whether kernels are compiled for the shapes that come, when they come."""
        return self.name == "tensorrt_rtx"

    def engine(self, content: bytes, subject: str, runtime_cache: Path | None) -> LoadedEngine:
        """Deserialise an engine; raises BundleError if the library does not take it.

        `runtime_cache` is the file that keeps the kernels that were compiled here.
        """
        engine = self._runtime.deserialize_cuda_engine(content)
        if engine is None:
            raise BundleError(
                subject, expected=f"an engine that {self.name} {self.version} loads",
                found=f"{len(content):,} bytes that it refuses", fix="build it again here: `glimmer-export build`",
            )
        return LoadedEngine(self, engine, subject, runtime_cache if self.specializes else None)


class LoadedEngine:
    """A deserialised engine."""

    def __init__(self, library: Library, engine: Any, subject: str, runtime_cache: Path | None) -> None:
        self._trt, self._engine, self.subject = library.trt, engine, subject
        self._config: Any = None
        self.runtime_cache: RuntimeCache | None = None
        if library.specializes:
            self._config = engine.create_runtime_config()
            # The default first runs fallback kernels, and a captured CUDA graph would keep them.
            strategy = library.trt.DynamicShapesKernelSpecializationStrategy.EAGER
            self._config.dynamic_shapes_kernel_specialization_strategy = strategy
            self._config.set_execution_context_allocation_strategy(self._allocation)
            if runtime_cache is not None:
                self.runtime_cache = RuntimeCache(runtime_cache, self._config)

    @property
    def tensors(self) -> dict[str, tuple[bool, str, tuple[int, ...]]]:
        """Of each I/O tensor: whether it is an input, numpy's name of its dtype, dimensions with -1 where they vary."""
        engine, found = self._engine, {}
        for index in range(engine.num_io_tensors):
            name = engine.get_tensor_name(index)
            is_input = engine.get_tensor_mode(name) == self._trt.TensorIOMode.INPUT
            dtype = np.dtype(self._trt.nptype(engine.get_tensor_dtype(name))).name
            found[name] = (is_input, dtype, tuple(engine.get_tensor_shape(name)))
        return found

    def profiles(self, inputs: list[str]) -> list[dict[str, tuple[tuple[int, ...], tuple[int, ...]]]]:
        """Least and greatest dimensions of each input, by optimization profile."""
        return [
            {name: self._range(name, index) for name in inputs}
            for index in range(self._engine.num_optimization_profiles)
        ]

    def context(self, profile: int, stream: int) -> Any:
        """A new execution context with an optimization profile; raises BackendError if there is none to be had."""
        context = self._engine.create_execution_context(self._allocation if self._config is None else self._config)
        if context is None or not context.set_optimization_profile_async(profile, stream):
            raise BackendError(
                self.subject, expected=f"an execution context for profile {profile}", found="none",
                fix="make room in the GPU's memory, or build engines for smaller shapes: `glimmer-export build`",
            )
        return context

    def close(self) -> None:
        """Keep what was compiled here, and let go of the engine, with its weights on the GPU."""
        if self.runtime_cache is not None:
            self.runtime_cache.keep()
        self._engine = self._config = self.runtime_cache = None

    @property
    def _allocation(self) -> Any:
        """Scratch memory for the one profile that a context is made for, not for the largest of all."""
        return self._trt.ExecutionContextAllocationStrategy.ON_PROFILE_CHANGE

    def _range(self, name: str, profile: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        least, _, greatest = self._engine.get_tensor_profile_shape(name, profile)
        return tuple(least), tuple(greatest)
