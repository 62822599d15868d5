"""OpenVINO on the CPU: the same graphs, in FP32, or in BF16 where the CPU has instructions for it and it is asked for.

Tensors are the host's, as on ONNX Runtime's CPU provider. What was compiled is kept nowhere unless a directory is named
for it (`compile_cache.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from glimmer_export.runtime.backends.compile_cache import CompileCache
from glimmer_export.runtime.backends.contract import BackendKind, BackendOptions
from glimmer_export.runtime.backends.host_graph import HostGraph, check_tensors
from glimmer_export.runtime.backends.openvino_library import DEVICE, OpenVinoModel, import_openvino
from glimmer_export.runtime.backends.threads import num_threads
from glimmer_export.runtime.contract import BF16, FP32, OPENVINO_BACKEND, BackendError, BundleError, GraphIO
from glimmer_export.runtime.contract.graph_io import IOTensor
from glimmer_export.runtime.cpu_kind import bf16_instructions

__all__ = ["KINDS", "OpenVinoBackend", "check_bf16"]

NATIVE = ("amx_bf16", "avx512_bf16")
"""What OpenVINO multiplies BF16 with. It offers BF16 on any CPU with AVX-512, and converts to FP32 where it must."""

SCORES = "scores"


def check_bf16() -> None:
    """Raise BackendError where OpenVINO does not compute BF16, or this CPU only emulates it."""
    found = bf16_instructions()
    if found not in NATIVE:
        raise BackendError(
            f"backend {OPENVINO_BACKEND} in {BF16}", expected=f"a CPU with {' or '.join(NATIVE)}", found=found,
            fix="leave --compute-precision out: emulated, BF16 is slower than FP32, and no more exact",
        )
    offered = import_openvino().Core().get_property(DEVICE, "OPTIMIZATION_CAPABILITIES")
    if "BF16" not in offered:
        raise BackendError(
            f"backend {OPENVINO_BACKEND} in {BF16}", expected="an OpenVINO that computes it on this CPU",
            found=", ".join(offered), fix="leave --compute-precision out",
        )


class OpenVinoBackend:
    """Runs graphs with OpenVINO's CPU plugin, one infer request a thread.

    `threads` is the number of threads of one graph run, None for as many as suit model and machine (threads.py).
    `compute_precision` is that of the float operators: `fp32`, or `bf16`, which raises BackendError where the CPU has
    no instructions for it. The graph that ranks passages stays in FP32: with eight bits, those that score nearly alike
    would tie. `compile_cache` is a directory for what was compiled;
    None: nowhere.
    """

    name = OPENVINO_BACKEND

    def __init__(
        self, threads: int | None = None, *, compute_precision: str = FP32, compile_cache: Path | None = None,
        bundle: Path | None = None,
    ) -> None:
        import_openvino()
        if compute_precision == BF16:
            check_bf16()
        self.compute_precision = compute_precision
        self._threads = threads
        self._cache = None if compile_cache is None else CompileCache(compile_cache, bundle)
        self._notes: dict[str, None] = {}

    def load(self, path: Path, io: GraphIO) -> HostGraph:
        """Load a graph file; raises BundleError if it is damaged or its I/O is not `io`, BackendError as opening."""
        subject = f"graph {path}"
        wanted = num_threads(self._threads, path)

        def refused(reason: str) -> BundleError:
            return BundleError(
                subject, expected="a graph that OpenVINO can load", found=reason, fix="export the bundle again"
            )

        precision = FP32 if any(tensor.name == SCORES for tensor in io.outputs) else self.compute_precision
        cache = None if self._cache is None else self._cache.place(path, precision, wanted)
        model = OpenVinoModel(path, precision, wanted, subject=subject, refused=refused, cache=cache)
        for expected, actual in ((io.inputs, model.inputs), (io.outputs, model.outputs)):
            wanted_tensors = [(tensor.name, tensor.dtype, len(tensor.dims)) for tensor in expected]
            check_tensors(subject, wanted_tensors, _named(expected, actual))
        if model.threads < wanted:
            self._notes[f"openvino: {model.threads} threads, as many as it finds cores, not {wanted}"] = None
        return HostGraph(lambda inputs: model.run(inputs.values()), io, subject)

    def notes(self) -> tuple[str, ...]:
        """Fewer threads than were asked for."""
        return tuple(self._notes)

    def close(self) -> None:
        """Nothing to do: what is held goes with the graphs."""


def _named(
    expected: Sequence[IOTensor], actual: Sequence[tuple[frozenset[str], str, int]]
) -> list[tuple[str, str, int]]:
    """A model's tensors by one name each: of a tensor's names any will do, so that which is expected is taken."""
    found = []
    for place, (names, dtype, rank) in enumerate(actual):
        name = expected[place].name if place < len(expected) else ""
        found.append((name if name in names else min(names, default=""), dtype, rank))
    return found


def _open(options: BackendOptions) -> OpenVinoBackend:
    return OpenVinoBackend(
        options.threads, compute_precision=options.compute_precision, compile_cache=options.compile_cache,
        bundle=options.bundle,
    )


KINDS = (
    BackendKind(
        OPENVINO_BACKEND, "openvino", _open, in_auto=True, check_bf16=check_bf16, has_compile_cache=True, cpu=True
    ),
)
