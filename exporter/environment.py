"""What is installed on this machine, what runs graphs on it, and why the rest does not."""

from __future__ import annotations

import os
import platform
from contextlib import closing
from dataclasses import asdict, dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from glimmer_export.runtime.backends import BackendKind
from glimmer_export.runtime.backends.cuda import Cuda
from glimmer_export.runtime.backends.registry import backend_kinds, open_backend
from glimmer_export.runtime.backends.threads import allowed_cpus
from glimmer_export.runtime.contract import GlimmerError, GraphIO, IOTensor
from glimmer_export.runtime.cpu_kind import bf16_instructions, cpu_kind

__all__ = ["BackendState", "Environment", "describe_environment"]

PACKAGES = (
    "numpy", "tokenizers", "safetensors", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-cu12",
    "tensorrt-cu13", "tensorrt-rtx-cu12", "cuda-python", "onnx", "onnx-ir", "onnxscript", "polygraphy", "torch",
    "transformers", "optimum", "optimum-onnx", "tantivy", "faiss-cpu", "pyarrow", "ray",
)
"""Distributions whose version a report of a fault should name."""
SMALLEST_OPSET = 17


@dataclass(frozen=True)
class BackendState:
    """Whether a backend runs graphs here: the version of its library, or the reason why not."""

    name: str
    works: bool
    detail: str


@dataclass(frozen=True)
class Gpu:
    """The GPU that graphs run on, the first that CUDA shows; memory in bytes."""

    name: str
    compute_capability: str
    memory_bytes: int


@dataclass(frozen=True)
class Environment:
    """A machine as a report of a fault should describe it. `packages` has those that are installed."""

    version: str
    python: str
    system: str
    cpu_kind: str
    bf16_instructions: str
    cpus: int
    memory_bytes: int
    gpu: Gpu | None
    packages: dict[str, str]
    backends: tuple[BackendState, ...]

    def to_json(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def describe_environment() -> Environment:
    """Look at this machine. Each backend is started as far as that goes without a bundle; nothing is kept."""
    return Environment(
        version=version("glimmer-export"),
        python=platform.python_version(),
        system=f"{platform.system()} {platform.release()} {platform.machine()}",
        cpu_kind=cpu_kind(),
        bf16_instructions=bf16_instructions(),
        cpus=len(allowed_cpus()),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        gpu=_gpu(),
        packages=_packages(),
        backends=tuple(_state(kind) for kind in backend_kinds()),
    )


def _packages() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _gpu() -> Gpu | None:
    try:
        cuda = Cuda()
        _, total = cuda.memory_info()
    except GlimmerError:
        return None
    return Gpu(cuda.gpu.name, cuda.gpu.compute_capability, total)


def _state(kind: BackendKind) -> BackendState:
    try:
        return BackendState(kind.name, works=True, detail=_started(kind))
    except GlimmerError as reason:
        return BackendState(kind.name, works=False, detail=str(reason))


def _started(kind: BackendKind) -> str:
    """Start a backend as far as that goes without a bundle; returns its library's version."""
    if kind.check is not None:
        return kind.check()
    with (
        TemporaryDirectory() as folder,
        closing(open_backend(kind.name, Path(folder), threads=1)) as backend,
    ):
        backend.load(_smallest_graph(Path(folder)), SMALLEST_IO)
    return f"{kind.library} {import_module(kind.library).__version__}"


SMALLEST_IO = GraphIO((IOTensor("x", "float32", ("batch",)),), (IOTensor("y", "float32", ("batch",)),))


def _smallest_graph(folder: Path) -> Path:
    """A graph that ONNX Runtime has to place on the provider in question."""
    from onnx import TensorProto, helper, save

    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch"]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "smallest", [x], [y])
    path = folder / "smallest.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", SMALLEST_OPSET)], ir_version=9), path)
    return path
