"""The least time that `glimmer-export cost` gives for each run of a graph on an H200."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from glimmer_export.exporter.bench.gpu.bundles import TARGET
from glimmer_export.exporter.bench.gpu.setting import Scale
from glimmer_export.exporter.bench.gpu.torch_stages import Described

__all__ = ["run_floors"]


def run_floors(manifest: Described, scale: Scale, *, precision: str = "fp16") -> dict[str, dict[str, Any]]:
    """By graph, for one run at batch 1: milliseconds of arithmetic and of bandwidth; and its runs in a question."""
    from glimmer_export.exporter.config.targets import read_target
    from glimmer_export.exporter.cost.model import Workload, model_from_manifest
    from glimmer_export.exporter.cost.ours import stage_costs
    from glimmer_export.exporter.cost.roofline import stage_floors

    workload = Workload(
        scale.k, scale.m, scale.question_tokens, scale.passage_tokens, scale.answer_tokens, corpus_passages=1
    )
    model = model_from_manifest("gpu", manifest, workload)  # type: ignore[arg-type]
    model = replace(model, shape=replace(model.shape, max_new_tokens=scale.answer_tokens))
    costs = stage_costs(model, workload)
    return {
        name: {
            "runs": costs[name].runs,
            "floor_ms": floor.ms / costs[name].runs,
            "arithmetic_ms": floor.arithmetic_ms / costs[name].runs,
            "bandwidth_ms": floor.bandwidth_ms / costs[name].runs,
            "binds": floor.binds,
        }
        for name, floor in stage_floors(model, workload, read_target(TARGET), precision).items()
        if costs[name].runs
    }
