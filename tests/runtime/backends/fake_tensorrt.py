"""FakeTensorRT stands in for the modules `tensorrt` and `tensorrt_rtx`; its engines run our ONNX graphs on the CPU.

A run is work on a FakeCuda's stream: ONNX Runtime computes it when the stream comes to it, from what the memory holds
then. What the real library leaves undefined is a CudaMisuseError: the default stream, an address that is not aligned,
shapes that are not set or outside the profile, a captured run whose context was changed since.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from importlib.machinery import ModuleSpec
from math import prod
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from weakref import WeakSet

import numpy as np
import onnxruntime

from glimmer_export.runtime.contract import (
    ENGINE_RECORD,
    ENGINE_SCHEMA_VERSION,
    ENGINES,
    BundleManifest,
    EngineEntry,
    EngineKey,
    EngineRecord,
    FileEntry,
    IOTensor,
    ShapeRange,
    graph_digest,
    read_manifest,
    record_to_json,
)
from tests.runtime.backends.fake_cuda import FakeCuda

__all__ = ["FakeTensorRT", "write_engines"]

ALIGNMENT = 256
BATCHES = (1, 8)
"""The greatest batch of each optimization profile."""
MOST_PASSAGES = 16
MOST_POSITIONS = 5


def write_engines(bundle: Path, key: EngineKey, *, batches: tuple[int, ...] = BATCHES) -> Path:
    """Write "engines" of every graph of a bundle, with a record; returns their directory."""
    manifest = read_manifest(bundle)
    directory = bundle / ENGINES / key.fingerprint
    directory.mkdir(parents=True)
    engines = {}
    for name, io in manifest.io().items():
        profiles = tuple(
            {tensor.name: _range(tensor, manifest, batch) for tensor in io.inputs} for batch in batches
        )
        content = json.dumps({
            "graph": str(bundle / manifest.graphs[name].files[0].path),
            "inputs": [_tensor(tensor) for tensor in io.inputs],
            "outputs": [_tensor(tensor) for tensor in io.outputs],
            "profiles": [{name: vars(dims) for name, dims in profile.items()} for profile in profiles],
        }).encode()
        (directory / f"{name}.engine").write_bytes(content)
        file = FileEntry(f"{name}.engine", len(content), hashlib.sha256(content).hexdigest())
        engines[name] = EngineEntry(file, graph_digest(manifest.graphs[name]), profiles, 0.1)
    record = EngineRecord(ENGINE_SCHEMA_VERSION, key, "t4", False, engines)
    (directory / ENGINE_RECORD).write_text(record_to_json(record), encoding="utf-8")
    return directory


def _tensor(tensor: IOTensor) -> dict[str, Any]:
    dims = [-1 if isinstance(dim, str) else dim for dim in tensor.dims]
    return {"name": tensor.name, "dtype": tensor.dtype, "dims": dims}


def _range(tensor: IOTensor, manifest: BundleManifest, batch: int) -> ShapeRange:
    shape = manifest.model
    both = shape.question_length + shape.passage_length
    most = {
        "batch": batch, "passages": MOST_PASSAGES, "shortlisted": MOST_PASSAGES, "selected": MOST_PASSAGES,
        "question": shape.question_length, "passage": shape.passage_length, "tokens": both,
        "encoder_tokens": MOST_PASSAGES * both, "prefix": shape.decoder_prefix_length,
        "cache_length": shape.cache_length, "positions": MOST_POSITIONS,
    }  # fmt: skip
    least = tuple(1 if isinstance(dim, str) else dim for dim in tensor.dims)
    greatest = tuple(most[dim] if isinstance(dim, str) else dim for dim in tensor.dims)
    return ShapeRange(least, greatest, greatest)


class FakeTensorRT:
    """A library of one name and version, on one FakeCuda."""

    def __init__(self, cuda: FakeCuda, name: str = "tensorrt", version: str = "10.3.0") -> None:
        self.cuda, self.name, self.version = cuda, name, version
        self.compiled: Counter[str] = Counter()
        """Graphs whose kernels were compiled for new shapes, by TensorRT-RTX."""
        self.contexts = 0
        self.engines: WeakSet[FakeEngine] = WeakSet()
        """Those that somebody still refers to."""
        self.refuses_contexts = False
        self.refuses_runs = False
        self.capturable = True
        """What a context of TensorRT-RTX says of itself."""

    @property
    def key(self) -> EngineKey:
        """What engines for this device and library are bound to."""
        properties = self.cuda.properties
        return EngineKey(self.name, self.version, f"{properties.major}.{properties.minor}", properties.name.decode())

    def install(self, monkeypatch) -> FakeTensorRT:
        """Be what `import tensorrt` gives."""
        module = ModuleType(self.name)
        module.__spec__ = ModuleSpec(self.name, None)
        module.__version__ = self.version
        module.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})
        module.Runtime = lambda logger: SimpleNamespace(deserialize_cuda_engine=self._deserialize)
        module.TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
        module.ExecutionContextAllocationStrategy = SimpleNamespace(ON_PROFILE_CHANGE="on profile change")
        module.nptype = np.dtype
        if self.name == "tensorrt_rtx":
            module.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager", LAZY="lazy")
        monkeypatch.setitem(sys.modules, self.name, module)
        return self

    def _deserialize(self, content: bytes) -> FakeEngine | None:
        try:
            engine = FakeEngine(self, json.loads(content))
        except ValueError:
            return None
        self.engines.add(engine)
        return engine


class FakeEngine:
    def __init__(self, library: FakeTensorRT, description: dict[str, Any]) -> None:
        self.library, self.description = library, description
        self.graph = Path(description["graph"])
        self.inputs = {tensor["name"]: tensor for tensor in description["inputs"]}
        self.outputs = {tensor["name"]: tensor for tensor in description["outputs"]}
        self.num_io_tensors = len(self.inputs) + len(self.outputs)
        self.num_optimization_profiles = len(description["profiles"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(self.graph, options, providers=["CPUExecutionProvider"])
        self._shapes: dict[Any, dict[str, tuple[int, ...]]] = {}

    def get_tensor_name(self, index):
        # Not in the order of the graph's I/O: the library promises none.
        return [*self.outputs, *self.inputs][index]

    def get_tensor_mode(self, name):
        return "input" if name in self.inputs else "output"

    def get_tensor_dtype(self, name):
        return (self.inputs | self.outputs)[name]["dtype"]

    def get_tensor_shape(self, name):
        return (self.inputs | self.outputs)[name]["dims"]

    def get_tensor_profile_shape(self, name, profile):
        dims = self.description["profiles"][profile][name]
        return [dims["min"], dims["opt"], dims["max"]]

    def create_runtime_config(self):
        assert self.library.name == "tensorrt_rtx"
        return FakeRuntimeConfig()

    def create_execution_context(self, strategy):
        if self.library.refuses_contexts:
            return None
        self.library.contexts += 1
        return FakeContext(self, strategy if isinstance(strategy, FakeRuntimeConfig) else None)

    def output_shapes(self, shapes: dict[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        key = tuple(shapes.items())
        if key not in self._shapes:
            inputs = {name: np.zeros(shape, self.inputs[name]["dtype"]) for name, shape in shapes.items()}
            self._shapes[key] = {name: value.shape for name, value in self.run(inputs).items()}
        return self._shapes[key]

    def run(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        return dict(zip(self.outputs, self.session.run(list(self.outputs), inputs), strict=True))


class FakeRuntimeConfig:
    def __init__(self) -> None:
        self.dynamic_shapes_kernel_specialization_strategy = "lazy"
        self.cache = FakeRuntimeCache()
        self.strategy = None

    def set_execution_context_allocation_strategy(self, strategy):
        self.strategy = strategy

    def create_runtime_cache(self):
        return FakeRuntimeCache()

    def set_runtime_cache(self, cache):
        self.cache = cache
        return True


class FakeRuntimeCache:
    def __init__(self) -> None:
        self.shapes: set[str] = set()

    def deserialize(self, content):
        try:
            self.shapes |= set(json.loads(content))
        except ValueError:
            return False
        return True

    def serialize(self):
        return json.dumps(sorted(self.shapes)).encode()


class FakeContext:
    def __init__(self, engine: FakeEngine, config: FakeRuntimeConfig | None) -> None:
        if config is not None:
            self.is_stream_capturable = self._is_stream_capturable
        self._engine, self._config = engine, config
        self._cuda = engine.library.cuda
        self._profile: int | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        self._version = 0
        self._warm: Any = None

    def set_optimization_profile_async(self, profile, stream):
        self._version += 1
        self._profile = profile
        return True

    def set_input_shape(self, name, shape):
        least, _, greatest = self._engine.get_tensor_profile_shape(name, self._profile)
        if len(shape) != len(least) or not all(map(_between, least, shape, greatest)):
            return False
        self._version += 1
        self._shapes[name] = tuple(shape)
        return True

    def get_tensor_shape(self, name):
        if self._shapes.keys() != self._engine.inputs.keys():
            return [-1] * len(self._engine.outputs[name]["dims"])
        return list(self._engine.output_shapes(self._ordered())[name])

    def set_tensor_address(self, name, address):
        if address % ALIGNMENT:
            raise self._cuda._fault(f"{name} at {address:#x}, which is not aligned")
        if self._addresses.get(name) != address:
            self._version += 1
            self._addresses[name] = address
        return True

    def _is_stream_capturable(self, stream):
        if self._cuda.capturing(stream):
            raise self._cuda._fault("a stream is asked for while it is captured")
        return self._engine.library.capturable

    def execute_async_v3(self, stream):
        if self._engine.library.refuses_runs or self._cuda.lost is not None:
            return False
        shapes, addresses = self._ordered(), dict(self._addresses)
        if addresses.keys() != self._engine.inputs.keys() | self._engine.outputs.keys():
            raise self._cuda._fault("a run without all addresses")
        state = (tuple(shapes.items()), tuple(addresses.items()))
        if self._cuda.capturing(stream):
            if not self._engine.library.capturable:
                raise self._cuda._fault("an engine is captured that says it cannot be")
            if self._warm != state:
                raise self._cuda._fault("a context is captured without a run before")
            if self._config is not None and self._config.dynamic_shapes_kernel_specialization_strategy != "eager":
                raise self._cuda._fault("fallback kernels are captured")
        self._compile(shapes)
        dtypes = {name: np.dtype(tensor["dtype"]) for name, tensor in self._tensors().items()}
        outputs = self._engine.output_shapes(shapes)
        sizes = {name: prod(shape) * dtypes[name].itemsize for name, shape in (shapes | outputs).items()}
        version = self._version

        def run() -> None:
            inputs = {
                name: self._cuda.bytes_at(addresses[name], sizes[name]).view(dtypes[name]).reshape(shape)
                for name, shape in shapes.items()
            }
            for name, value in self._engine.run(inputs).items():
                self._cuda.bytes_at(addresses[name], sizes[name])[:] = value.reshape(-1).view(np.uint8)

        def check() -> None:
            if self._version != version:
                raise self._cuda._fault(f"the context of a captured run of {self._engine.graph.stem} was changed")

        self._cuda.enqueue(
            stream, self._engine.graph.stem, [(addresses[name], sizes[name]) for name in shapes],
            [(addresses[name], sizes[name]) for name in outputs], run, check,
        )
        self._warm = state
        return True

    def _compile(self, shapes: dict[str, tuple[int, ...]]) -> None:
        if self._config is not None and str(shapes) not in self._config.cache.shapes:
            self._config.cache.shapes.add(str(shapes))
            self._engine.library.compiled[self._engine.graph.stem] += 1

    def _ordered(self) -> dict[str, tuple[int, ...]]:
        return {name: self._shapes[name] for name in self._engine.inputs if name in self._shapes}

    def _tensors(self) -> dict[str, Any]:
        return self._engine.inputs | self._engine.outputs


def _between(least: int, size: int, greatest: int) -> bool:
    return least <= size <= greatest
