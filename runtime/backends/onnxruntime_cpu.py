"""ONNX Runtime on the CPU."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from glimmer_export.runtime.backends.contract import BackendKind, BackendOptions
from glimmer_export.runtime.backends.host_graph import HostGraph, check_tensors
from glimmer_export.runtime.backends.onnxruntime_library import OrtSession, import_onnxruntime
from glimmer_export.runtime.backends.threads import num_threads, sleep_soon
from glimmer_export.runtime.contract import (
    BF16,
    CPU_BACKEND,
    FP32,
    OPENVINO_BACKEND,
    BackendError,
    BundleError,
    GraphIO,
)
from glimmer_export.runtime.cpu_kind import bf16_instructions, cpu_kind

__all__ = ["KINDS", "OnnxRuntimeBackend", "OnnxRuntimeLoader", "check_bf16"]

FASTMATH = "mlas.enable_gemm_fastmath_arm64_bfloat16"

NUMPY_TO_ORT = {
    "float32": "tensor(float)", "float16": "tensor(float16)", "int8": "tensor(int8)", "int32": "tensor(int32)",
    "uint8": "tensor(uint8)",
}


def check_bf16() -> None:
    """Raise BackendError unless ONNX Runtime computes FP32 products in BF16 here: on ARM, with instructions for it."""
    found = "an ARM without BF16 instructions" if cpu_kind() == "arm" else f"a CPU of the kind {cpu_kind()}"
    if cpu_kind() != "arm" or bf16_instructions() == "none":
        raise BackendError(
            f"backend {CPU_BACKEND} in {BF16}", expected="an ARM CPU with BF16 instructions", found=found,
            fix=f"leave --compute-precision out, or choose the backend {OPENVINO_BACKEND}",
        )


class OnnxRuntimeLoader:
    """Opens graphs in ONNX Runtime with execution providers, best first; what only they share."""

    def __init__(self, threads: int | None, providers: tuple[str, ...]) -> None:
        self._onnxruntime: Any = import_onnxruntime()
        self._providers, self._threads = providers, threads

    def _make_options(self) -> Any:
        """Options of one session: they may hold files of its graph's."""
        options = self._onnxruntime.SessionOptions()
        options.log_severity_level = 3
        sleep_soon(options, self._onnxruntime.__version__)
        return options

    def _session(self, path: Path, io: GraphIO) -> OrtSession:
        """Open a graph file; raises BundleError if it is damaged or its I/O is not `io`."""
        options = self._make_options()
        options.intra_op_num_threads = num_threads(self._threads, path)

        def refused(reason: str) -> BundleError:
            return BundleError(
                f"graph {path}", expected="a graph that ONNX Runtime can load", found=reason,
                fix="export the bundle again",
            )

        session = OrtSession(path, options, self._providers, subject=f"graph {path}", refused=refused)
        for expected, actual in ((io.inputs, session.inputs), (io.outputs, session.outputs)):
            wanted = [(tensor.name, NUMPY_TO_ORT[tensor.dtype], len(tensor.dims)) for tensor in expected]
            check_tensors(f"graph {path}", wanted, actual)
        return session


class OnnxRuntimeBackend(OnnxRuntimeLoader):
    """Runs graphs with ONNX Runtime's CPU execution provider.

    `threads` is the number of threads of one graph run, None for as many as suit model and machine (threads.py). `lean`
    is for runs whose memory counts more than their time: no packed copies of the weights, no arena that keeps the
    largest of every length that was seen, no plan of its memory for each combination of lengths. `compute_precision` is
    `fp32`, or on ARM `bf16`, which rounds the inputs of FP32 products to BF16; anywhere else it raises BackendError.
    """

    name = CPU_BACKEND

    def __init__(
        self, threads: int | None = None, *, lean: bool = False, compute_precision: str = FP32
    ) -> None:
        super().__init__(threads, ("CPUExecutionProvider",))
        if compute_precision == BF16:
            check_bf16()
        self._lean, self.compute_precision = lean, compute_precision

    def _make_options(self) -> Any:
        options = super()._make_options()
        if self.compute_precision == BF16:
            options.add_session_config_entry(FASTMATH, "1")
        if self._lean:
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.enable_cpu_mem_arena = False
            options.enable_mem_pattern = False
        return options

    def load(self, path: Path, io: GraphIO) -> HostGraph:
        """Load a graph file; raises BundleError if it is damaged or its I/O is not `io`."""
        session, outputs = self._session(path, io), [tensor.name for tensor in io.outputs]
        return HostGraph(partial(session.run, outputs), io, f"graph {path}")

    def close(self) -> None:
        """Nothing to do: what is held goes with the graphs."""


def _open(options: BackendOptions) -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend(options.threads, lean=options.lean, compute_precision=options.compute_precision)


KINDS = (
    BackendKind(
        CPU_BACKEND, "onnxruntime", _open, in_auto=True, check_bf16=check_bf16, cpu=True, few_bit_weights=True
    ),
)
