"""A stand-in for the module `tensorrt` whose engines are our own stages, run by torch on the stream that it is given.

So the whole of our CUDA layer (streams, pools, copies, CUDA graphs, the passage cache) runs on a GPU for which there is
no engine, and nothing but torch is needed. It is TensorRT's API as far as `runtime/backends/tensorrt` calls it.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from math import prod
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Protocol

import numpy as np

from glimmer_export.exporter.bench.gpu.torch_stages import StageOfGraph, TorchStages
from glimmer_export.runtime.contract import GraphIO, read_manifest

__all__ = ["LIBRARY", "VERSION", "At", "Gpu", "TorchGpu", "TorchLibrary", "engine_content"]

LIBRARY, VERSION = "tensorrt", "10.3.0"
"""What it gives itself out for: the oldest version that the runtime takes."""


@dataclass(frozen=True)
class At:
    """A tensor by its address in the GPU's memory."""

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def num_bytes(self) -> int:
        """Bytes from the address on."""
        return prod(self.shape) * self.dtype.itemsize


class Gpu(Protocol):
    """Where stages run: torch's GPU, or in a rehearsal the CPU behind a fake of CUDA."""

    torch_device: str

    def scratch(self) -> Any:
        """Memory of one execution context for what lies between its inputs and outputs."""
        ...

    def queue(
        self, stream: int, name: str, stage: Callable[..., list[Any]], inputs: Sequence[At], outputs: Sequence[At],
        scratch: Any,
    ) -> None:
        """Queue a run of a stage."""
        ...


class TorchGpu:
    """The GPU that torch and the runtime share."""

    torch_device = "cuda"

    def scratch(self) -> Any:
        """A pool of torch's allocator.

        What a CUDA graph captured is written again whenever that is launched, so nobody else may be given it.
        """
        import torch

        return torch.cuda.MemPool()

    def queue(
        self, stream: int, name: str, stage: Callable[..., list[Any]], inputs: Sequence[At], outputs: Sequence[At],
        scratch: Any,
    ) -> None:
        """Queue a run on the runtime's own stream, which may be capturing."""
        import torch

        with (
            torch.inference_mode(), torch.cuda.stream(torch.cuda.ExternalStream(stream)),
            torch.cuda.use_mem_pool(scratch),
        ):  # fmt: skip
            found = stage(*map(_tensor, inputs))
            for target, value in zip(outputs, found, strict=True):
                _tensor(target).copy_(value)


def _tensor(at: At) -> Any:
    """The memory as torch's tensor, not a copy."""
    import torch

    interface = {
        "shape": at.shape, "typestr": at.dtype.str, "data": (at.address, False), "strides": None, "version": 3
    }
    return torch.as_tensor(SimpleNamespace(__cuda_array_interface__=interface), device="cuda")


def engine_content(bundle: Path, checkpoint: Path, graph: str, dtype: str, profiles: Sequence[Any]) -> bytes:
    """What stands in for an engine's bytes: if its stage comes from, and the shapes that it takes."""
    ranges = [{name: (dims.min, dims.opt, dims.max) for name, dims in profile.items()} for profile in profiles]
    return json.dumps({
        "bundle": str(bundle), "checkpoint": str(checkpoint), "graph": graph, "dtype": dtype, "profiles": ranges,
    }).encode()


class TorchLibrary:
    """The stages of all checkpoints that were asked for, by checkpoint and dtype."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu = gpu
        self.queued: Counter[str] = Counter()
        """By graph, runs that torch was asked for: those of a captured CUDA graph are not among them."""
        self._stages: dict[tuple[str, str], TorchStages] = {}

    def install(self) -> TorchLibrary:
        """Be what `import tensorrt` gives in this process."""
        module: Any = ModuleType(LIBRARY)
        module.__spec__ = ModuleSpec(LIBRARY, None)
        module.__version__ = VERSION
        module.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})
        module.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=self.engine)
        module.TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
        module.ExecutionContextAllocationStrategy = SimpleNamespace(ON_PROFILE_CHANGE="on profile change")
        module.nptype = np.dtype
        module.torch_library = self
        sys.modules[LIBRARY] = module
        return self

    @classmethod
    def installed(cls) -> TorchLibrary | None:
        """The one of this process."""
        return getattr(sys.modules.get(LIBRARY), "torch_library", None)

    def engine(self, content: bytes) -> TorchEngine:
        """An engine of what `engine_content` gave."""
        description = json.loads(bytes(content))
        key = (description["checkpoint"], description["dtype"])
        if key not in self._stages:
            self._stages[key] = TorchStages(Path(key[0]), self.gpu.torch_device, key[1])
        manifest, graph = read_manifest(Path(description["bundle"])), description["graph"]
        stage = self._stages[key].stage(manifest, graph)
        return TorchEngine(self, graph, stage, manifest.io()[graph], description["profiles"])


class TorchEngine:
    """As `tensorrt.ICudaEngine`, for one stage."""

    def __init__(
        self, library: TorchLibrary, graph: str, stage: StageOfGraph, io: GraphIO, profiles: list[dict[str, Any]]
    ) -> None:
        self.library, self.graph, self.stage, self.io = library, graph, stage, io
        self._profiles = profiles
        self._inputs = {tensor.name for tensor in io.inputs}
        self._tensors = {tensor.name: tensor for tensor in (*io.inputs, *io.outputs)}
        self.num_io_tensors, self.num_optimization_profiles = len(self._tensors), len(profiles)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self._inputs else "output"

    def get_tensor_dtype(self, name: str) -> str:
        return self._tensors[name].dtype

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(-1 if isinstance(dim, str) else dim for dim in self._tensors[name].dims)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        found: list[list[int]] = self._profiles[profile][name]
        return found

    def create_execution_context(self, strategy: Any) -> TorchContext:
        return TorchContext(self)


class TorchContext:
    """As `tensorrt.IExecutionContext`."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._scratch = engine.library.gpu.scratch()

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        return True

    def set_input_shape(self, name: str, shape: Sequence[int]) -> bool:
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """An input's as it was set, an output's as it follows from these."""
        if name in self._shapes:
            return self._shapes[name]
        sizes = {
            dim: size
            for tensor in self._engine.io.inputs
            for dim, size in zip(tensor.dims, self._shapes[tensor.name], strict=True)
        }
        if "question" in sizes:
            sizes.setdefault("tokens", sizes["question"] + sizes.get("passage", 0))
        if "selected" in sizes:
            sizes.setdefault("encoder_tokens", sizes["selected"] * sizes["tokens"])
        dims = self._engine._tensors[name].dims
        return tuple(dim if isinstance(dim, int) else sizes[dim] for dim in dims)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return True

    def execute_async_v3(self, stream: int) -> bool:
        engine = self._engine
        engine.library.queued[engine.graph] += 1
        inputs, outputs = (
            [At(self._addresses[tensor.name], self.get_tensor_shape(tensor.name), np.dtype(tensor.dtype))
             for tensor in tensors]
            for tensors in (engine.io.inputs, engine.io.outputs)
        )  # fmt: skip
        engine.library.gpu.queue(stream, engine.graph, engine.stage, inputs, outputs, self._scratch)
        return True
