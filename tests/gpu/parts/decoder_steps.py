"""(e) One decoder step at xl and xxl width, as many layers as fit the time, against its bandwidth floor."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from statistics import median
from typing import Any

from tests.gpu.backends import build_engines_here
from tests.gpu.bundles import Model, random_model, random_questions_of
from tests.gpu.floors import run_floors
from tests.gpu.kernels import count_kernels, engine_layers
from tests.gpu.ours import AT_ONCE, Ours
from tests.gpu.runner import Step
from tests.gpu.setting import Setting
from tests.gpu.timing import interleaved_ms, spread

__all__ = ["steps"]

PRECISION = "fp16"
GRAPH = "decoder_step"
INPUT_SETS = 2
"""A step reads its weights, far more than any cache holds; each further set would want a CUDA graph of its own."""


def steps(setting: Setting) -> list[Step]:
    """For each size: the model, its engines, the step."""
    found = []
    for size, layers in setting.scale.step_layers:
        found += [
            Step(f"{size}-model", 240, lambda _, size=size, layers=layers: _model(setting, size, layers)[1]),
            Step(f"{size}-engines", 120, partial(_engines, setting, size, layers), needs=(f"{size}-model",)),
            Step(f"{size}-step", 60, partial(_step, setting, size, layers), needs=(f"{size}-engines",)),
        ]
    return found


def _model(setting: Setting, size: str, layers: int) -> tuple[Model, dict[str, float]]:
    return random_model(setting.work, size, setting.scale, tiny=setting.rehearsal, decoder_layers=layers)


def _engines(setting: Setting, size: str, layers: int, _: Mapping[str, Any]) -> dict[str, Any]:
    return build_engines_here(setting, _model(setting, size, layers)[0].bundle(PRECISION))


def _step(setting: Setting, size: str, layers: int, _: Mapping[str, Any]) -> dict[str, Any]:
    """Median of a step, run after run; its share of the floor is floor / median."""
    model, _ = _model(setting, size, layers)
    floor = run_floors(model.bundle(PRECISION), setting.scale)[GRAPH]
    with Ours.open(setting, model, PRECISION) as ours:
        inputs = ours.record(random_questions_of(model, setting.scale, INPUT_SETS, seed=6))[GRAPH]
        times = interleaved_ms({"ours": ours.alone(GRAPH, inputs)}, repeats=setting.scale.stage_repeats)["ours"]
        kernels = count_kernels(ours.once(GRAPH, inputs), engine_layers(ours.graphs[GRAPH]))
    per_run = [value / AT_ONCE for value in times]
    return {
        "layers": layers, "precision": PRECISION, **floor, **spread(per_run), "kernels": kernels,
        "of_bandwidth_floor": floor["bandwidth_ms"] / median(per_run),
    }
