"""What a decoder step costs the host, with CUDA and TensorRT stubbed out: microseconds by size, batch and form.

    python -m tests.runtime.measure_host_work --tree . --tree ../before

Each tree is a checkout of this repository, run by a process of its own; the processes take turns, in a new random order
every round. Of their process's CPU time the medians are given, which another program's load changes little, and of the
clock's.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from importlib.machinery import ModuleSpec
from pathlib import Path
from statistics import median
from types import ModuleType, SimpleNamespace
from typing import Any

SIZES = {"base": (12, 768, 12), "large": (24, 1024, 16)}
"""Decoder layers, d_model and heads of T5 v1.1."""
BATCHES = (1, 16)
FORMS = ("absorbed", "cached")
ENCODER_TOKENS, VOCABULARY, ANSWER_TOKENS = 1760, 32128, 16
ANSWERS = 3
"""Of one measurement, behind two that warm up."""


class StubCuda:
    """CUDA's runtime, where everything succeeds at once and nothing is done."""

    cudaError_t = SimpleNamespace(cudaSuccess=0)  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyDefault=4)  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815

    def __init__(self) -> None:
        self._next, self._kept = 1 << 40, []
        properties = SimpleNamespace(name=b"Stub", major=7, minor=5, integrated=0)
        for name, values in {
            "cudaGetDeviceCount": (1,), "cudaGetDeviceProperties": (properties,), "cudaMemGetInfo": (1 << 40, 1 << 40),
            **dict.fromkeys(
                ("cudaMemcpyAsync", "cudaMemsetAsync", "cudaStreamSynchronize", "cudaEventRecord", "cudaEventQuery",
                 "cudaEventSynchronize", "cudaStreamWaitEvent", "cudaStreamBeginCapture", "cudaGraphLaunch",
                 "cudaGraphDestroy", "cudaGraphExecDestroy", "cudaFree", "cudaFreeHost", "cudaStreamQuery"), (),
            ),
            **dict.fromkeys(
                ("cudaStreamCreateWithFlags", "cudaEventCreateWithFlags", "cudaStreamEndCapture",
                 "cudaGraphInstantiate"), (7,),
            ),
        }.items():  # fmt: skip
            answer = (0, *values)
            setattr(self, name, lambda *_, answer=answer: answer)

    def cudaMalloc(self, num_bytes: int) -> tuple[int, int]:  # noqa: N802
        self._next += num_bytes + 4096 & ~4095
        return 0, self._next

    def cudaHostAlloc(self, num_bytes: int, flags: int) -> tuple[int, int]:  # noqa: N802
        self._kept.append((ctypes.c_uint8 * num_bytes)())
        return 0, ctypes.addressof(self._kept[-1])

    def cudaHostGetDevicePointer(self, address: int, flags: int) -> tuple[int, int]:  # noqa: N802
        return 0, address


class StubEngine:
    """An engine of a graph's I/O that runs nothing."""

    def __init__(self, io: Any) -> None:
        self.io = io
        self.tensors = {tensor.name: tensor for tensor in (*io.inputs, *io.outputs)}
        self.names = list(self.tensors)
        self.inputs = {tensor.name for tensor in io.inputs}
        self.num_io_tensors, self.num_optimization_profiles = len(self.names), 2

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> str:
        return "input" if name in self.inputs else "output"

    def get_tensor_dtype(self, name: str) -> str:
        return self.tensors[name].dtype

    def get_tensor_shape(self, name: str) -> list[int]:
        return [-1 if isinstance(dim, str) else dim for dim in self.tensors[name].dims]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        dims = self.tensors[name].dims
        sizes = {"batch": (1, 16)[profile], "cache_length": ANSWER_TOKENS, "positions": 1}
        most = [sizes.get(dim, 1 << 20) for dim in dims]
        greatest = [dim if isinstance(dim, int) else most[place] for place, dim in enumerate(dims)]
        return [[1 if isinstance(dim, str) else dim for dim in dims], greatest, greatest]

    def create_execution_context(self, strategy: Any) -> StubContext:
        return StubContext(self)


class StubContext:
    """Knows shapes, and takes addresses."""

    def __init__(self, engine: StubEngine) -> None:
        self._engine, self._sizes = engine, {}
        self.set_optimization_profile_async = self.set_tensor_address = lambda *_: True
        self.execute_async_v3 = lambda stream: True

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self._sizes.update(zip(self._engine.tensors[name].dims, shape, strict=True))
        return True

    def get_tensor_shape(self, name: str) -> list[int]:
        return [self._sizes.get(dim, dim) for dim in self._engine.tensors[name].dims]


def work(size: str, batch: int, form: str) -> tuple[float, float]:
    """Microseconds a step of a whole answer: of the clock, and of this process's CPU time."""
    decode, steps = _decoder(size, batch, form)
    for _ in range(2):
        decode()
    clock, cpu = time.perf_counter(), time.process_time()
    for _ in range(ANSWERS):
        decode()
    return tuple(1e6 * spent / ANSWERS / steps for spent in (time.perf_counter() - clock, time.process_time() - cpu))


_decoders: dict[tuple[str, int, str], Any] = {}


def _decoder(size: str, batch: int, form: str) -> Any:
    if (size, batch, form) in _decoders:
        return _decoders[size, batch, form]
    import numpy as np

    from glimmer_export.runtime.backends.cuda import Cuda
    from glimmer_export.runtime.backends.tensorrt.device import CudaDevice
    from glimmer_export.runtime.backends.tensorrt.engine_graph import EngineGraph
    from glimmer_export.runtime.backends.tensorrt.library import Library
    from glimmer_export.runtime.contract import Forms, ModelShape, graph_io
    from glimmer_export.runtime.decode import greedy_decode
    from glimmer_export.runtime.placement import DevicePlacement

    layers, width, heads = SIZES[size]
    shape = ModelShape(
        "glimmer", VOCABULARY, width, 64, 4 * width, heads, "gated-gelu", 1, 1, 1, layers, False, 48, 304,
        "{question}", "{text}", 25, 5, ANSWER_TOKENS, 0, -1, 0,
    )  # fmt: skip
    device, library = CudaDevice(Cuda()), Library("tensorrt")
    io = graph_io(shape, Forms(("fp16",), "lazy", form))
    graphs = {}
    for name in ("decoder_step", *(("cross_kv",) if form == "cached" else ())):
        sys.modules["tensorrt"].io = io[name]
        graphs[name] = EngineGraph(library.engine(b"", name, None), io[name], device, captures=name == "decoder_step")
    place = DevicePlacement(graphs, device)
    encoded = {
        "states": np.zeros((batch, ENCODER_TOKENS, width), np.float32),
        "mask": np.ones((batch, ENCODER_TOKENS), np.int32),
    }
    states, mask = device.constants(encoded).values()

    def decode() -> None:
        answers = greedy_decode(place, shape, states, mask, [[0]] * batch, check_finite=True)
        assert all(len(answer.tokens) == ANSWER_TOKENS for answer in answers)

    _decoders[size, batch, form] = (decode, ANSWER_TOKENS)
    return decode, ANSWER_TOKENS


def _install() -> None:
    package, bindings = ModuleType("cuda"), ModuleType("cuda.bindings")
    package.__path__ = bindings.__path__ = []
    bindings.runtime = StubCuda()
    module = ModuleType("tensorrt")
    module.__spec__, module.__version__ = ModuleSpec("tensorrt", None), "10.3.0"
    module.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, level: None})
    module.Runtime = lambda log: SimpleNamespace(deserialize_cuda_engine=lambda content: StubEngine(module.io))
    module.TensorIOMode = SimpleNamespace(INPUT="input", OUTPUT="output")
    module.ExecutionContextAllocationStrategy = SimpleNamespace(ON_PROFILE_CHANGE="on profile change")
    module.nptype = lambda dtype: dtype
    sys.modules.update({"cuda": package, "cuda.bindings": bindings, "tensorrt": module})


def _serve() -> None:
    _install()
    for line in sys.stdin:
        size, batch, form = line.split()
        sys.stdout.write(f"{' '.join(map(str, work(size, int(batch), form)))}\n")
        sys.stdout.flush()


def _worker(tree: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree.resolve()), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "--serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env=environment, cwd=tree,
    )


def main() -> None:
    """Ask a process a tree in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tree", type=Path, action="append", help="a checkout to measure; repeatable")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _serve()
        return
    workers = {tree: _worker(tree) for tree in options.tree or [Path()]}
    found = defaultdict(list)
    for _ in range(options.rounds):
        asked = [(tree, size, batch, form) for tree in workers for size in SIZES for batch in BATCHES for form in FORMS]
        random.shuffle(asked)
        for tree, *setting in asked:
            process = workers[tree]
            process.stdin.write(f"{' '.join(map(str, setting))}\n")
            process.stdin.flush()
            found[(tree, *setting)].append([float(value) for value in process.stdout.readline().split()])
    for process in workers.values():
        process.stdin.close()
        process.wait()
    table = ["| tree | size | batch | form | CPU, us a step | clock, us a step | fastest |",
                "| --- | --- | ---: | --- | ---: | ---: | ---: |"]  # fmt: skip
    for (tree, *setting), rows in sorted(found.items(), key=lambda item: (item[0][1:], str(item[0][0]))):
        clock, cpu = zip(*rows, strict=True)
        figures = (*setting, f"{median(cpu):.0f}", f"{median(clock):.0f}", f"{min(clock):.0f}")
        table.append(f"| {tree} | {' | '.join(map(str, figures))} |")
    sys.stdout.write("\n".join(table) + "\n")


if __name__ == "__main__":
    main()
