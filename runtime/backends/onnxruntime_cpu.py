"""ONNX Runtime on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from runtime.backends.contract import Array
from runtime.backends.threads import set_threads
from runtime.contract import CPU_BACKEND, BackendError, BundleError, GraphIO

__all__ = ["OnnxRuntimeBackend", "OnnxRuntimeLoader"]

NUMPY_TO_ORT = {
    "float32": "tensor(float)", "float16": "tensor(float16)", "int8": "tensor(int8)", "int32": "tensor(int32)",
    "uint8": "tensor(uint8)",
}


class OnnxRuntimeLoader:
    """Opens graphs in ONNX Runtime with execution providers, best first; what only they share."""

    def __init__(self, threads: int | None, providers: tuple[str, ...]) -> None:
        try:
            import onnxruntime
        except ImportError:
            raise BackendError(
                "backend onnxruntime-cpu", expected="the package onnxruntime", found="none",
                fix='install it: pip install "glimmer-export[cpu]"',
            ) from None
        self._onnxruntime: Any = onnxruntime
        self._providers = providers
        self._options = onnxruntime.SessionOptions()
        self._options.log_severity_level = 3
        self._threads = threads

    def _session(self, path: Path, io: GraphIO) -> Any:
        """Open a graph file; raises BundleError where it is damaged or its I/O is not `io`."""
        self._set_threads(path)
        try:
            session = self._onnxruntime.InferenceSession(
                str(path), sess_options=self._options, providers=list(self._providers)
            )
        except Exception as error:  # onnxruntime's exceptions share no base class but Exception
            raise BundleError(
                f"graph {path}", expected="a graph that ONNX Runtime can load", found=str(error).splitlines()[0],
                fix="export the bundle again",
            ) from error
        for expected, found in ((io.inputs, session.get_inputs()), (io.outputs, session.get_outputs())):
            wanted = [(tensor.name, NUMPY_TO_ORT[tensor.dtype], len(tensor.dims)) for tensor in expected]
            actual = [(tensor.name, tensor.type, len(tensor.shape)) for tensor in found]
            if wanted != actual:
                raise BundleError(f"graph {path}", expected=f"I/O {wanted}", found=f"{actual}", fix="export it again")
        return session

    def _set_threads(self, graph: Path) -> None:
        set_threads(self._options, self._threads, graph)


class OnnxRuntimeBackend(OnnxRuntimeLoader):
    """Runs graphs with ONNX Runtime's CPU execution provider.

    `threads` is the number of threads of one graph run, None for as many as suit model and machine (threads.py). `lean`
    is for runs whose memory counts more than their time: no packed copies of the weights, no arena that keeps the
    largest of every length that was seen, no plan of its memory for each combination of lengths.
    """

    name = CPU_BACKEND

    def __init__(self, threads: int | None = None, *, lean: bool = False) -> None:
        super().__init__(threads, ("CPUExecutionProvider",))
        if lean:
            self._options.add_session_config_entry("session.disable_prepacking", "1")
            self._options.enable_cpu_mem_arena = False
            self._options.enable_mem_pattern = False

    def load(self, path: Path, io: GraphIO) -> OnnxRuntimeGraph:
        """Load a graph file; raises BundleError where it is damaged or its I/O is not `io`."""
        return OnnxRuntimeGraph(self._session(path, io))


class OnnxRuntimeGraph:
    """One loaded graph; ONNX Runtime's sessions may be run from several threads at once."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._inputs = [tensor.name for tensor in session.get_inputs()]
        self._outputs = [output.name for output in session.get_outputs()]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run once; inputs must have the dtypes of the contract, and those that it has not are left aside."""
        wanted = {name: inputs[name] for name in self._inputs}
        return dict(zip(self._outputs, self._session.run(self._outputs, wanted), strict=True))
