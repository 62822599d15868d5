"""A backend that shows what FP16 does: ONNX Runtime on the CPU with every FP16 operator's result rounded to FP16."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glimmer_export.calibration.load_graph import load_graph
from glimmer_export.runtime.backends import OnnxRuntimeBackend
from glimmer_export.runtime.contract import ROUNDING_BACKEND, GraphIO

if TYPE_CHECKING:
    from glimmer_export.runtime.backends.host_graph import HostGraph

__all__ = ["RoundingBackend"]


class RoundingBackend(OnnxRuntimeBackend):
    """Loads FP16 graphs through `RoundFp16`, to measure their accuracy and find their overflows if no GPU is.

    An FP32 graph runs as it is. Optimisations are off, so that no pair of casts is taken for nothing and no rounding
    is fused away.
    """

    name = ROUNDING_BACKEND

    def __init__(self, threads: int | None = None) -> None:
        super().__init__(threads)

    def _make_options(self) -> Any:
        options = super()._make_options()
        options.graph_optimization_level = self._onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return options

    def load(self, path: Path, io: GraphIO) -> HostGraph:
        """Load a graph file; raises BundleError if it is damaged or its I/O is not `io`."""
        import onnx_ir

        from glimmer_export.calibration.passes.round_fp16 import RoundFp16

        super().load(path, io)
        model = load_graph(path)
        RoundFp16()(model)
        with tempfile.TemporaryDirectory() as directory:
            rounded = Path(directory) / path.name
            onnx_ir.save(model, rounded, external_data=f"{path.name}.data")
            return super().load(rounded, io)
