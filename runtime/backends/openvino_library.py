"""Calls of OpenVINO: the only module that reads, compiles and runs its models, and its exceptions become ours.

OpenVINO raises RuntimeError for whatever its code in C++ throws, of which std::bad_alloc comes as MemoryError.

Its Python package imports openvino-telemetry, on which it depends, and that writes an identifier below the user's home
as it is imported. So it is imported as if that package were not there, for which it has a stub; and of what it offers,
`read_model` and `compile_model` alone are called, which report nothing.

What a model computes with is set and read back (`NUMERICS`): left alone, OpenVINO rounds to BF16 where the CPU has it
and quantises activations of what has compressed weights.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import local
from typing import Any, cast

import numpy as np

from glimmer_export.runtime.backends.contract import Array
from glimmer_export.runtime.backends.mapped_weights import mapped_model
from glimmer_export.runtime.backends.onnxruntime_library import NO_MEMORY
from glimmer_export.runtime.contract import BackendError, DeviceMemoryError, GlimmerError
from glimmer_export.runtime.contract.library_errors import LibraryErrors, first_line

__all__ = ["DEVICE", "OpenVinoModel", "import_openvino", "settings_for"]

DEVICE = "CPU"
TELEMETRY = "openvino_telemetry"
OWN = (MemoryError, RuntimeError)
WHERE = "Exception from "
"""What the lines of a message begin with that name places in OpenVINO's own code."""


def import_openvino() -> Any:
    """The package, without the one that reports home; raises BackendError if it is not installed."""
    try:
        with _absent(TELEMETRY):
            import openvino
    except ImportError:
        raise BackendError(
            "backend openvino", expected="the package openvino", found="none",
            fix='install it: pip install "glimmer-export[openvino]"',
        ) from None
    return openvino


@contextmanager
def _absent(package: str) -> Iterator[None]:
    """While this lasts, a package that nobody has imported yet cannot be."""
    if package in sys.modules:
        yield
        return
    # What the import system takes as the word of whoever runs it that there is no such module.
    sys.modules[package] = cast("Any", None)
    try:
        yield
    finally:
        sys.modules.pop(package, None)


def settings_for(openvino: Any, precision: str, threads: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """What decides the numbers, and what else, of a model in `fp32` or `bf16`, run by so many threads.

    The first are read back of every model; of the others OpenVINO takes fewer threads where there are fewer cores.
    """
    hints = openvino.properties.hint
    floats = openvino.Type.f32 if precision == "fp32" else openvino.Type.bf16
    numerics = {
        "INFERENCE_PRECISION_HINT": floats,
        "EXECUTION_MODE_HINT": hints.ExecutionMode.ACCURACY,
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,
        "KV_CACHE_PRECISION": floats,
        "KEY_CACHE_PRECISION": floats,
        "VALUE_CACHE_PRECISION": floats,
        "CPU_DENORMALS_OPTIMIZATION": False,
        "CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE": 1.0,
    }
    others = {
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": hints.PerformanceMode.LATENCY,
        # Threads that are tied to cores wait for whoever else has them (threads.py).
        "ENABLE_CPU_PINNING": False,
        "ENABLE_HYPER_THREADING": False,
    }
    return numerics, others


class OpenVinoModel:
    """A graph that OpenVINO has compiled for the CPU. Safe from several threads: each has an infer request of its own.

    `inputs` and `outputs` have names, numpy's type and rank of each: a tensor that passes through operators that do
    nothing has a name from each of them. `threads` is how many run it.
    """

    def __init__(
        self, graph: Path, precision: str, threads: int, *, subject: str, refused: Callable[[str], GlimmerError],
        cache: Path | None = None,
    ) -> None:
        """Load a graph file; `cache` is the directory that keeps what was compiled of it, and nothing else.

        Raises what `refused` makes of OpenVINO's reason where it does not read the graph, BackendError where it does
        not compile it, or not with the settings that it was given, DeviceMemoryError for want of memory.
        """
        openvino = import_openvino()
        self._openvino = openvino
        self._failed = openvino_errors(subject, partial(_failed, subject))
        numerics, others = settings_for(openvino, precision, threads)
        with openvino_errors(subject, refused):
            core = openvino.Core()
            try:
                mapped = mapped_model(graph)
            except OSError as reason:
                raise refused(str(reason)) from None
            self._mapped = [] if mapped is None else mapped[1]
            model = core.read_model(graph if mapped is None else mapped[0])
        with openvino_errors(subject, partial(_not_compiled, subject)):
            kept = {} if cache is None else {"CACHE_DIR": os.fspath(cache)}
            self._compiled: Any = core.compile_model(model, DEVICE, {**numerics, **others, **kept})
            found = {name: self._compiled.get_property(name) for name in numerics}
            self.threads = int(self._compiled.get_property("INFERENCE_NUM_THREADS"))
            self.inputs, self.outputs = (
                [(frozenset(port.get_names()), _dtype_of(port), len(port.get_partial_shape())) for port in side]
                for side in (self._compiled.inputs, self._compiled.outputs)
            )
        for name, wanted in numerics.items():
            if found[name] != wanted:
                raise BackendError(
                    f"{subject}, OpenVINO's {name}", expected=str(wanted), found=str(found[name]),
                    fix="install the release of openvino that constraints.txt has, or choose another backend",
                )
        self._requests = local()

    def run(self, inputs: Iterable[Array]) -> list[Array]:
        """Run once on arrays in the order of `inputs`, and copy what comes in that of `outputs`.

        The arrays are read where they are, and not any more once this returns. Raises BackendError if the graph fails,
        DeviceMemoryError for want of memory.
        """
        with self._failed:
            request = getattr(self._requests, "request", None)
            if request is None:
                request = self._requests.request = self._compiled.create_infer_request()
            held = [np.ascontiguousarray(array) for array in inputs]
            for place, array in enumerate(held):
                request.set_input_tensor(place, self._openvino.Tensor(array, shared_memory=True))
            request.infer()
            found: list[Array] = [
                request.get_output_tensor(place).data.copy() for place in range(len(self.outputs))
            ]
        return found


def openvino_errors(subject: str, refused: Callable[[str], GlimmerError]) -> LibraryErrors:
    """For a call of OpenVINO: its exceptions by `refused`, and want of memory as DeviceMemoryError."""

    def named(raised: BaseException) -> GlimmerError:
        lines = [line for line in str(raised).splitlines() if not line.startswith(WHERE)]
        reason = first_line(RuntimeError("\n".join(lines)))
        if isinstance(raised, MemoryError) or NO_MEMORY.search(str(raised)):
            return DeviceMemoryError(
                subject, expected="memory to load and run it", found=reason,
                fix="ask fewer questions at once, lower top_k, or make room in memory",
            )
        return refused(reason)

    return LibraryErrors(lambda kind: kind in OWN, named)


def _dtype_of(port: Any) -> str:
    return str(np.dtype(port.get_element_type().to_dtype()))


def _failed(subject: str, reason: str) -> BackendError:
    return BackendError(
        subject, expected="a graph that runs", found=reason,
        fix="compare the bundle with its checkpoint: `glimmer-export parity`; or choose another backend",
    )


def _not_compiled(subject: str, reason: str) -> BackendError:
    return BackendError(
        subject, expected="a graph that OpenVINO compiles for this CPU", found=reason, fix="choose another backend"
    )
