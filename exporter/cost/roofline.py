"""The least time a machine needs: for its arithmetic at the peak rate, or for moving what a graph must read and write.

A floor, not a forecast: every weight is read once a run, inputs and outputs cross memory once, nothing else does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from glimmer_export.exporter.config.targets import Target
from glimmer_export.exporter.cost.model import CostModel, Workload, run_dims
from glimmer_export.exporter.cost.ours import graph_weights, stage_costs
from glimmer_export.runtime.contract import (
    BLOCK_SIZE,
    DECODER_STEP,
    LIVE_STAGE_A,
    LIVE_STAGE_B,
    STAGES,
    WEIGHT_BITS,
    IOTensor,
    boundaries_of,
    boundary_of,
    with_fp16,
)

__all__ = ["Floor", "StepBytes", "bytes_per_run", "stage_floors", "step_bytes"]

WEIGHT_BYTES = {"fp32": 4, "fp16": 2, "int8": 1}
STATE_BYTES = {"fp32": 4, "fp16": 2, "int8": 2}
"""Bytes of a state between graphs that may be FP16; INT8 is a matter of matrix products, not of what they hand over."""
FP32 = 4
BLOCK_BITS = {f"w{bits}": bits + (8 * FP32 + bits) / BLOCK_SIZE for bits in WEIGHT_BITS.values()}
"""Of a weight of few bits, with its share of a scale and a zero point."""
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
        """Which of both decides; None if a question does not run the graph."""
        if not self.ms:
            return None
        return "arithmetic" if self.arithmetic_ms >= self.bandwidth_ms else "bandwidth"


@dataclass(frozen=True)
class StepBytes:
    """What a decoder step must move, at least: `weights` once for all questions, by precision; `states` for each.

    Among the precisions are weights of few bits alone, `w4` and `w8`, beside FP32 for what is one weight a head.

    `states` are what it attends to, its cache in and out, and logits, with what may be FP16 between graphs in `fp32`
    and in `fp16`, and as the `bundle` has it if there is one.
    """

    weights: dict[str, int]
    states: dict[str, int]


def step_bytes(model: CostModel, workload: Workload) -> StepBytes:
    """Of one step at batch 1; each tensor counts once, however often the graph reads it."""
    dims, graphs = run_dims(model, workload, DECODER_STEP), model.io
    chosen = {"fp32": (), "fp16": tuple(boundaries_of(graphs))}
    if model.fp16_boundaries is not None:
        chosen["bundle"] = model.fp16_boundaries
    states = {}
    for name, boundaries in chosen.items():
        io = with_fp16(graphs, boundaries)[DECODER_STEP]
        tensors = (*io.inputs, *io.outputs)
        states[name] = sum(_elements(tensor, dims) * np.dtype(tensor.dtype).itemsize for tensor in tensors)
    count = graph_weights(model, DECODER_STEP)
    weights = {precision: count * size for precision, size in WEIGHT_BYTES.items()}
    by_head = 0
    if model.forms.cross_attention == "absorbed":  # those for keys and values, which stay as they are
        by_head = 2 * model.shape.num_decoder_layers * model.projection
    weights |= {name: by_head * FP32 + int((count - by_head) * bits / 8) for name, bits in BLOCK_BITS.items()}
    return StepBytes(weights, states)


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

    A gathered embedding is a few rows and left out; stage B gathers the selected passages and reads no others, and so
    does stage A of a cascade the shortlisted.
    """
    dims = run_dims(model, workload, graph)
    if graph == LIVE_STAGE_B and model.shape.traits.selects:
        dims["passages"] = dims["shortlisted"] = dims["selected"]
    elif graph == LIVE_STAGE_A:
        dims["passages"] = dims[STAGES[graph].row_dim(model.shape) or "passages"]
    io = model.io[graph]
    moved = sum(_tensor_bytes(tensor, dims, precision) for tensor in (*io.inputs, *io.outputs))
    return moved + graph_weights(model, graph) * WEIGHT_BYTES[precision]


def _tensor_bytes(tensor: IOTensor, dims: dict[str, int], precision: str) -> int:
    state = STATE_BYTES[precision] if boundary_of(tensor.name) else FP32
    return _elements(tensor, dims) * STORED_BYTES.get(tensor.dtype, state)


def _elements(tensor: IOTensor, dims: dict[str, int]) -> int:
    return math.prod(dims[dim] if isinstance(dim, str) else dim for dim in tensor.dims)
