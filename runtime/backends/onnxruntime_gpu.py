"""ONNX Runtime with I/O binding: tensors stay with an execution provider's device from graph to graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from glimmer_export.runtime.backends.contract import Array, BackendKind, BackendOptions, Spec, Tensor
from glimmer_export.runtime.backends.cuda_libraries import INSTALL_GPU, find_missing, preload
from glimmer_export.runtime.backends.onnxruntime_cpu import OnnxRuntimeBackend, OnnxRuntimeLoader
from glimmer_export.runtime.backends.onnxruntime_library import OrtSession, from_device, to_device
from glimmer_export.runtime.backends.tensor_checks import OutputShapes, in_types
from glimmer_export.runtime.contract import BackendError, BundleError, GraphIO
from glimmer_export.runtime.passage_memory import PassageMemory, padded_memory

__all__ = ["KINDS", "OnnxRuntimeDeviceBackend"]

FALLBACKS = {"TensorrtExecutionProvider": ("CUDAExecutionProvider",)}
"""What runs the nodes that a provider does not take."""


class OnnxRuntimeDeviceBackend(OnnxRuntimeLoader):
    """Runs graphs with one of ONNX Runtime's execution providers, `CUDAExecutionProvider` if not another.

    `device` is where its tensors live, as ONNX Runtime names it. `threads` as for the CPU.
    """

    def __init__(
        self, provider: str = "CUDAExecutionProvider", device: str = "cuda", *, threads: int | None = None
    ) -> None:
        """Raises BackendError if the installed ONNX Runtime does not have the provider."""
        super().__init__(threads, (provider, *FALLBACKS.get(provider, ())))
        self.name = _name(provider)
        if provider not in (available := self._onnxruntime.get_available_providers()):
            raise BackendError(
                f"backend {self.name}", expected=f"an ONNX Runtime with {provider}", found=", ".join(available),
                fix=f'{INSTALL_GPU}; without the package "onnxruntime" beside it, which takes the same folder',
            )
        preload(self._onnxruntime, provider)
        self._provider = provider
        self._device = OrtDevice(self._onnxruntime, device)

    def load(self, path: Path, io: GraphIO) -> OrtDeviceGraph:
        """Load a graph file; raises BundleError as on the CPU, BackendError if the provider does not start here."""
        try:
            session = self._session(path, io)
        except BundleError as refused:
            OnnxRuntimeBackend(self._threads).load(path, io)  # raises if the graph is to blame
            raise self._not_started(refused.found) from None
        if self._provider not in (active := session.session.get_providers()):
            raise self._not_started(", ".join(active))
        return OrtDeviceGraph(session, io, self._device, f"graph {path}")

    def close(self) -> None:
        """Nothing to do: what is held goes with the graphs and tensors."""

    def _not_started(self, found: str) -> BackendError:
        """The library that is missing, if one is; else what ONNX Runtime said, or had instead."""
        missing = find_missing(self._onnxruntime, self._provider)
        return BackendError(
            f"backend {self.name}", expected=f"{self._provider} to start",
            found=found if missing is None else f"no library {missing.name}",
            fix="look whether `nvidia-smi` shows the GPU, and a driver new enough for this ONNX Runtime's CUDA"
            if missing is None else missing.fix,
        )


class OrtTensor:
    """A tensor that ONNX Runtime owns, on a provider's device."""

    def __init__(self, value: Any, dtype: np.dtype[Any]) -> None:
        self.value, self.dtype = value, dtype
        self.shape: tuple[int, ...] = tuple(value.shape())

    @property
    def address(self) -> int:
        """Where it begins, as the device counts."""
        return int(self.value.data_ptr())

    def fetch(self) -> Callable[[], Array]:
        """A run ends when its outputs are there, so that only the copy is left to be done."""
        return lambda: from_device(self.value)


class OrtDevice:
    """Memory of one provider's device."""

    eos_interval = 1
    """A run is waited for in any case."""

    def __init__(self, onnxruntime: Any, name: str) -> None:
        self._onnxruntime, self.name = onnxruntime, name

    def place(self, tensor: Tensor) -> OrtTensor:
        """A tensor of this device as it is; an array is copied."""
        if not isinstance(tensor, np.ndarray):
            return cast("OrtTensor", tensor)
        value = to_device(self._onnxruntime, np.ascontiguousarray(tensor), self.name)
        return OrtTensor(value, tensor.dtype)

    def constants(self, arrays: Mapping[str, Array]) -> dict[str, OrtTensor]:
        """Copies of the host's arrays."""
        return {name: self.place(array) for name, array in arrays.items()}

    def zeros(self, specs: Mapping[str, Spec]) -> dict[str, OrtTensor]:
        """Tensors of zeros."""
        return {name: self.place(np.zeros(shape, dtype)) for name, (shape, dtype) in specs.items()}

    def memory(self, rows: Sequence[Sequence[PassageMemory]], num_tokens: int) -> dict[str, OrtTensor]:
        """What `padded_memory` lays out."""
        return {name: self.place(array) for name, array in padded_memory(rows, num_tokens).items()}


class OrtDeviceGraph:
    """One loaded graph with its inputs and outputs on a device; safe from several threads, as its session is."""

    max_batch = None

    def __init__(self, session: OrtSession, io: GraphIO, device: OrtDevice, subject: str) -> None:
        self.device = device
        self._session, self._subject = session, subject
        self._shapes = OutputShapes(io, subject)
        self.dtypes = {tensor.name: np.dtype(tensor.dtype) for tensor in io.inputs}
        self._outputs = {tensor.name: np.dtype(tensor.dtype) for tensor in io.outputs}

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once, from the host's arrays to the host's."""
        return {name: tensor.fetch()() for name, tensor in self.launch(inputs).items()}

    def launch(self, inputs: Mapping[str, Tensor]) -> dict[str, OrtTensor]:
        """Run once; raises as the CPU's graphs do."""
        binding = self._session.session.io_binding()
        for name, tensor in in_types(inputs, self.dtypes, self._subject).items():
            binding.bind_ortvalue_input(name, self.device.place(tensor).value)
        for name in self._outputs:
            binding.bind_output(name, self.device.name)
        values = zip(self._outputs.items(), self._session.run_bound(binding), strict=True)
        outputs = {name: OrtTensor(value, dtype) for (name, dtype), value in values}
        self._shapes.check(inputs, outputs)
        return outputs


def _name(provider: str) -> str:
    return f"onnxruntime-{provider.removesuffix('ExecutionProvider').lower()}"


def _kind(provider: str, *, in_auto: bool) -> BackendKind:
    def opened(options: BackendOptions) -> OnnxRuntimeDeviceBackend:
        return OnnxRuntimeDeviceBackend(provider, threads=options.threads)

    return BackendKind(_name(provider), "onnxruntime", opened, in_auto=in_auto, slow_on_cpu_codes=True)


KINDS = (
    _kind("CUDAExecutionProvider", in_auto=True),
    # It builds engines for minutes when a graph first runs, which nobody expects of `auto`.
    _kind("TensorrtExecutionProvider", in_auto=False),
)
