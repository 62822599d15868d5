"""What each stage has to do: multiply-adds, and for those that wait for memory, the bytes they cannot but move."""

from __future__ import annotations

from dataclasses import dataclass, replace

from glimmer_export.exporter.cost.model import CostModel, model_from_manifest
from glimmer_export.exporter.cost.ours import graph_weights, stage_costs
from glimmer_export.exporter.cost.roofline import bytes_per_run
from glimmer_export.exporter.cost.workload import Workload
from glimmer_export.runtime.contract import BundleManifest

__all__ = ["QUESTION_ENCODER", "StageWork", "stage_work"]

QUESTION_ENCODER = "question_encoder"
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

    Lazy stage A of one layer and the decoder step wait for memory. The memory encoder runs on the question.
    """
    shape = replace(manifest.model, max_new_tokens=workload.answer_tokens)
    model = model_from_manifest("bench", replace(manifest, model=shape), workload)
    work = {}
    for graph, cost in stage_costs(model, workload).items():
        if not cost.runs:
            continue
        one = StageWork(cost.macs * batch_size, "arithmetic")
        if graph == "decoder_step" or (graph == "live_stage_a" and _is_one_pass(model)):
            one = replace(one, bound="memory", bytes=cost.runs * _run_bytes(model, workload, graph, batch_size))
        if graph == "live_stage_a" and _is_one_pass(model):
            memory = workload.num_retrieved * workload.passage_tokens * shape.d_model * FLOAT16
            one = replace(one, memory_bytes=batch_size * memory)
        work[QUESTION_ENCODER if graph == "memory_encoder" else graph] = one
    return work


def _is_one_pass(model: CostModel) -> bool:
    return model.forms.stage_a == "lazy" and model.shape.num_stage_a_layers == 1


def _run_bytes(model: CostModel, workload: Workload, graph: str, batch_size: int) -> int:
    """One run reads its weights once, whatever the batch."""
    weights = FLOAT32 * graph_weights(model, graph)
    return weights + batch_size * (bytes_per_run(model, workload, graph, "fp32") - weights)
