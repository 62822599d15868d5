"""The least time a machine needs: for its arithmetic at the peak rate, or for moving what a graph must read and write.

A floor, not a forecast: every weight is read once a run, inputs and outputs cross memory once, nothing else does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from exporter.cost.dims import run_dims
from exporter.cost.model import CostModel
from exporter.cost.ours import graph_weights, stage_costs
from exporter.cost.workload import Workload
from exporter.targets import Target
from runtime.contract import IOTensor

__all__ = ["Floor", "bytes_per_run", "stage_floors"]

WEIGHT_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
STATE_BYTES = {"fp32": 4, "fp16": 2, "int8": 2}
"""Bytes of a state between graphs: INT8 is a matter of matrix products, not of what they hand over."""
STORED_BYTES = {"float16": 2, "int8": 1, "int32": 4, "uint8": 1}
"""Inputs whose dtype the precision does not change: the store's codes, ids and masks."""


@dataclass(frozen=True)
class Floor:
    """Milliseconds of all runs of a graph in one question: no machine of these rates can be faster."""

    arithmetic_ms: float
    bandwidth_ms: float

    @property
    def ms(self) -> float:
        """The larger of both."""
        return max(self.arithmetic_ms, self.bandwidth_ms)

    @property
    def binds(self) -> str | None:
        """Which of both decides; None where a question does not run the graph."""
        if not self.ms:
            return None
        return "arithmetic" if self.arithmetic_ms >= self.bandwidth_ms else "bandwidth"


def stage_floors(model: CostModel, workload: Workload, target: Target, precision: str) -> dict[str, Floor]:
    """The floor of each graph on a machine, all its products in one of `PRECISIONS`."""
    rate: float = getattr(target.peak_tops, precision) * 1e9
    bandwidth = target.memory_bandwidth_gb_per_s * 1e6
    return {
        name: Floor(
            2 * cost.macs / rate, cost.runs * bytes_per_run(model, workload, name, precision) / bandwidth
        )
        for name, cost in stage_costs(model, workload).items()
    }


def bytes_per_run(model: CostModel, workload: Workload, graph: str, precision: str) -> int:
    """Bytes that one run must move: its matrices' weights, its inputs and its outputs.

    A gathered embedding is a few rows and left out; stage B gathers the selected passages and reads no others.
    """
    dims = run_dims(model, workload, graph)
    if graph == "live_stage_b" and model.shape.traits.selects:
        dims["passages"] = dims["selected"]
    io = model.io[graph]
    moved = sum(_tensor_bytes(tensor, dims, precision) for tensor in (*io.inputs, *io.outputs))
    return moved + graph_weights(model, graph) * WEIGHT_BYTES[precision]


def _tensor_bytes(tensor: IOTensor, dims: dict[str, int], precision: str) -> int:
    elements = math.prod(dims[dim] if isinstance(dim, str) else dim for dim in tensor.dims)
    return elements * STORED_BYTES.get(tensor.dtype, STATE_BYTES[precision])
