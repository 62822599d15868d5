"""A rehearsal's GPU: the tests' fakes of CUDA and TensorRT-RTX, with torch's and ONNX Runtime's CPU behind them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from glimmer_export.exporter.bench.gpu.torch_library import At
from tests.runtime.backends.fake_cuda import FakeCuda
from tests.runtime.backends.fake_tensorrt import FakeTensorRT

__all__ = ["RTX_VERSION", "FakeGpu", "fake_cuda", "fake_rtx"]

RTX_VERSION = "1.7.1.116"
MODULES = SimpleNamespace(setitem=dict.__setitem__)
"""Puts modules in place for as long as the process lasts: a step has one of its own."""


def fake_cuda() -> FakeCuda:
    """The fake that is in CUDA's place in this process, put there if there is none."""
    found = getattr(sys.modules.get("cuda.bindings"), "runtime", None)
    if isinstance(found, FakeCuda):
        return found
    return FakeCuda(name="NVIDIA H200", capability=(9, 0)).install(MODULES)


def fake_rtx() -> FakeTensorRT:
    """The same for TensorRT-RTX."""
    found = getattr(sys.modules.get("tensorrt_rtx"), "fake", None)
    if not isinstance(found, FakeTensorRT):
        found = FakeTensorRT(fake_cuda(), "tensorrt_rtx", RTX_VERSION).install(MODULES)
        sys.modules["tensorrt_rtx"].__dict__["fake"] = found
    return found


class FakeGpu:
    """Stages run on the CPU, when the fake's stream comes to them, on what its memory holds then."""

    torch_device = "cpu"

    def __init__(self, cuda: FakeCuda) -> None:
        self._cuda = cuda

    def scratch(self) -> None:
        """The CPU's own memory."""

    def queue(
        self, stream: int, name: str, stage: Callable[..., list[Any]], inputs: Sequence[At], outputs: Sequence[At],
        scratch: Any,
    ) -> None:
        """Queue a run as the fakes of TensorRT do."""

        def run() -> None:
            import torch

            with torch.inference_mode():
                found = stage(*(torch.from_numpy(self._array(at).copy()) for at in inputs))
            for target, value in zip(outputs, found, strict=True):
                self._array(target)[...] = value.numpy()

        self._cuda.enqueue(
            stream, name, [(at.address, at.num_bytes) for at in inputs], [(at.address, at.num_bytes) for at in outputs],
            run,
        )

    def _array(self, at: At) -> Any:
        content: np.ndarray[Any, Any] = self._cuda.bytes_at(at.address, at.num_bytes)
        return content.view(at.dtype).reshape(at.shape)
