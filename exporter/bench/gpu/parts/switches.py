"""CUDA graphs on and off, transfers overlapped or not, a passage cache or none: whole answers in turn.

They are switches of our CUDA layer: measured on TensorRT-RTX where that runs, and else on torch's stages.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import Any

from glimmer_export.exporter.bench.gpu.backends import build_engines_here, described, working
from glimmer_export.exporter.bench.gpu.bundles import Model, random_model, random_questions_of
from glimmer_export.exporter.bench.gpu.ours import Ours
from glimmer_export.exporter.bench.gpu.parts.speed import PRECISION, model_step
from glimmer_export.exporter.bench.gpu.runner import Step
from glimmer_export.exporter.bench.gpu.setting import RTX, TORCH, Setting
from glimmer_export.exporter.bench.gpu.timing import interleaved_ms, spread

__all__ = ["BATCHES", "VARIANTS", "engine_of", "steps"]

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {}, "no CUDA graphs": {"cuda_graphs": False}, "no overlap": {"overlap": False},
    "passage cache": {"passage_cache_bytes": 1 << 30},
}  # fmt: skip
BATCHES = (1, 16)
DIFFERENT = 3
"""Batches that take turns; the warm-up asks each, so that a cache holds all their passages."""


def steps(setting: Setting, size: str) -> list[Step]:
    """All variants side by side, by batch."""
    measured = [
        Step(f"batch-{batch}", 90, partial(_variants, setting, size, batch), needs=("engines",)) for batch in BATCHES
    ]
    return [
        model_step(setting, size), Step("engines", 120, partial(_engines, setting, size), needs=("model",)), *measured
    ]  # fmt: skip


def engine_of(setting: Setting) -> str:
    """What runs here of those that have these switches; raises RuntimeError if nothing does."""
    found = working(setting, (RTX, TORCH))
    if not found:
        raise RuntimeError(f"neither {RTX} nor {TORCH} run here")
    return found[0]


def _model(setting: Setting, size: str) -> Model:
    return random_model(setting.work, size, setting.scale, tiny=setting.rehearsal)[0]


def _engines(setting: Setting, size: str, _: Mapping[str, Any]) -> dict[str, Any]:
    engine = engine_of(setting)
    return {"engine": engine, **build_engines_here(setting, engine, _model(setting, size), PRECISION)}


def _variants(setting: Setting, size: str, batch: int, _: Mapping[str, Any]) -> dict[str, Any]:
    model, engine = _model(setting, size), engine_of(setting)
    batch = min(batch, max(setting.scale.batches))
    questions = random_questions_of(model, setting.scale, DIFFERENT * batch, seed=5)
    groups = [questions[start : start + batch] for start in range(0, len(questions), batch)]
    with ExitStack() as opened:
        sessions = {
            name: opened.enter_context(Ours.open(setting, engine, model, PRECISION, **switches))
            for name, switches in VARIANTS.items()
        }
        answers = {name: [ours.answer(group) for group in groups] for name, ours in sessions.items()}
        work = {
            name: (lambda run, ours=ours: ours.answer(groups[run % DIFFERENT])) for name, ours in sessions.items()
        }
        times = interleaved_ms(work, repeats=2 * setting.scale.repeats, warmup=DIFFERENT)
    usual = median(times["default"])
    return {
        "engine": described(engine, PRECISION), "batch": batch, "precision": PRECISION,
        "ratios": {name: median(times[name]) / usual for name in times},
        "variants": {name: spread(times[name]) for name in times},
        "same_answers": {name: given == answers["default"] for name, given in answers.items()},
    }  # fmt: skip
