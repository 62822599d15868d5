"""What this machine can do at best, sampled between the runs, and what each stage has to do.

Measured are a large matrix product in FP32 and INT8, and a copy. Counted are multiply-adds, and for stages that wait
for memory the bytes that they cannot but move.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import numpy as np

from glimmer_export.exporter.cost.model import CostModel, Workload, model_from_manifest
from glimmer_export.exporter.cost.ours import graph_weights, stage_costs
from glimmer_export.exporter.cost.roofline import bytes_per_run
from glimmer_export.runtime.backends.onnxruntime_library import OrtSession, import_onnxruntime
from glimmer_export.runtime.contract import (
    DECODER_STEP,
    LIVE_SHORTLIST,
    LIVE_STAGE_A,
    STAGES,
    BackendError,
    BundleManifest,
)

__all__ = ["CeilingRates", "Ceilings", "StageWork", "stage_work"]

MATRIX_SIZE = 2048
COPY_BYTES = 256 << 20


@dataclass(frozen=True)
class CeilingRates:
    """Medians over the samples.

    Multiply-adds a second of square matrix products through ONNX Runtime, and bytes a second of a copy, each byte
    counted once though it is read and written.
    """

    fp32_macs_per_second: float
    int8_macs_per_second: float
    copy_bytes_per_second: float


class Ceilings:
    """Measures with as many threads as the contenders have, in the same run as they."""

    def __init__(self, threads: int, *, matrix_size: int = MATRIX_SIZE, copy_bytes: int = COPY_BYTES) -> None:
        self._size, self._copy_bytes = matrix_size, copy_bytes
        random = np.random.default_rng(0)
        shape = (matrix_size, matrix_size)
        activations = random.standard_normal(shape, np.float32)
        weights = random.standard_normal(shape, np.float32)
        unsigned = random.integers(0, 256, shape, np.uint8)
        signed = random.integers(-127, 128, shape, np.int8)
        self._pool = ThreadPoolExecutor(threads)
        self._source = np.array_split(random.integers(0, 1 << 62, copy_bytes // 8, np.int64), threads)
        self._target = [np.ones_like(part) for part in self._source]
        self._work: dict[str, Callable[[], object]] = {
            "fp32": _product(activations, weights, "MatMul", threads),
            "int8": _product(unsigned, signed, "MatMulInteger", threads),
            "copy": self._copy,
        }
        self._seconds: dict[str, list[float]] = {name: [] for name in self._work}

    def sample(self) -> None:
        """Measure each once, warm: the first of two runs brings its operands back into the caches."""
        for name, work in self._work.items():
            work()
            started = time.perf_counter()
            work()
            self._seconds[name].append(time.perf_counter() - started)

    def rates(self) -> CeilingRates:
        """The medians of what was sampled."""
        seconds = {name: median(values) for name, values in self._seconds.items()}
        macs = self._size**3
        return CeilingRates(macs / seconds["fp32"], macs / seconds["int8"], self._copy_bytes / seconds["copy"])

    def _copy(self) -> None:
        list(self._pool.map(np.copyto, self._target, self._source))


def _product(activations: Any, weights: Any, operator: str, threads: int) -> Callable[[], object]:
    """A session of one product with constant weights, as the graphs have them."""

    def refused(reason: str) -> BackendError:
        return BackendError(
            f"operator {operator}", expected="an ONNX Runtime that has it", found=reason, fix="install a newer one"
        )

    from onnx import helper, numpy_helper

    size = activations.shape[0]
    output = np.dtype(np.int32 if operator == "MatMulInteger" else np.float32)
    graph = helper.make_graph(
        [helper.make_node(operator, ["activations", "weights"], ["product"])], "ceiling",
        [_tensor("activations", activations.dtype, size)], [_tensor("product", output, size)],
        [numpy_helper.from_array(weights, "weights")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = import_onnxruntime().SessionOptions()
    options.intra_op_num_threads = threads
    session = OrtSession(model.SerializeToString(), options, subject=f"{operator} of size {size}", refused=refused)
    return lambda: session.run(["product"], {"activations": activations})


def _tensor(name: str, dtype: np.dtype[Any], size: int) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), [size, size])


FLOAT32, FLOAT16 = 4, 2


@dataclass(frozen=True)
class StageWork:
    """A stage's work for one batch, of all runs of its graph.

    `bound` names the ceiling it is held against: `arithmetic` (multiply-adds, against the FP32 matrix product) or
    `memory` (`bytes`, against the copy). `memory_bytes` is the part of `bytes` that is passages' memory.
    """

    macs: int
    bound: str
    bytes: int | None = None
    memory_bytes: int | None = None


def stage_work(manifest: BundleManifest, workload: Workload, batch_size: int) -> dict[str, StageWork]:
    """Work of each stage for a batch of questions, by the formulas of `glimmer-export cost`.

    Lazy stage A of one layer, a shortlist and the decoder step wait for memory. The memory encoder runs on the
    question.
    """
    shape = replace(manifest.model, max_new_tokens=workload.answer_tokens)
    model = model_from_manifest("bench", replace(manifest, model=shape), workload)
    work = {}
    for graph, cost in stage_costs(model, workload).items():
        if not cost.runs:
            continue
        one = StageWork(cost.macs * batch_size, "arithmetic")
        if graph == DECODER_STEP or _is_one_pass(model, graph):
            one = replace(one, bound="memory", bytes=cost.runs * _run_bytes(model, workload, graph, batch_size))
        if _is_one_pass(model, graph):
            memory = workload.num_retrieved * workload.passage_tokens * shape.d_model * FLOAT16
            one = replace(one, memory_bytes=batch_size * memory)
        work[STAGES[graph].asked_as] = one
    return work


def _is_one_pass(model: CostModel, graph: str) -> bool:
    lazy = model.forms.stage_a == "lazy" and model.shape.num_stage_a_layers == 1
    return graph == LIVE_SHORTLIST or (graph == LIVE_STAGE_A and lazy)


def _run_bytes(model: CostModel, workload: Workload, graph: str, batch_size: int) -> int:
    """One run reads its weights once, whatever the batch."""
    weights = FLOAT32 * graph_weights(model, graph)
    return weights + batch_size * (bytes_per_run(model, workload, graph, "fp32") - weights)
