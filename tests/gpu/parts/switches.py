"""(d) CUDA graphs on and off, transfers overlapped or not, a passage cache or none: whole answers in turn."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from statistics import median
from typing import Any

from tests.gpu.bundles import random_model, random_questions_of
from tests.gpu.kernels import count_kernels
from tests.gpu.ours import Ours
from tests.gpu.parts.speed import PRECISION, preparation
from tests.gpu.runner import Step
from tests.gpu.setting import Setting
from tests.gpu.timing import interleaved_ms, spread

__all__ = ["VARIANTS", "steps"]

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
    return [*preparation(setting, size), *measured]


def _variants(setting: Setting, size: str, batch: int, _: Mapping[str, Any]) -> dict[str, Any]:
    model, _ = random_model(setting.work, size, setting.scale, tiny=setting.rehearsal)
    batch = min(batch, max(setting.scale.batches))
    questions = random_questions_of(model, setting.scale, DIFFERENT * batch, seed=5)
    groups = [questions[start : start + batch] for start in range(0, len(questions), batch)]
    with ExitStack() as opened:
        sessions = {
            name: opened.enter_context(Ours.open(setting, model, PRECISION, **switches))
            for name, switches in VARIANTS.items()
        }
        answers = {name: [ours.answer(group) for group in groups] for name, ours in sessions.items()}
        work = {
            name: (lambda run, ours=ours: ours.answer(groups[run % DIFFERENT])) for name, ours in sessions.items()
        }
        times = interleaved_ms(work, repeats=2 * setting.scale.repeats, warmup=DIFFERENT)
        kernels = {name: count_kernels(lambda ours=ours: ours.answer(groups[0])) for name, ours in sessions.items()}
    usual = median(times["default"])
    return {
        "batch": batch, "precision": PRECISION, "ratios": {name: median(times[name]) / usual for name in times},
        "variants": {name: {**spread(times[name]), "kernels": kernels[name]} for name in times},
        "same_answers": {name: given == answers["default"] for name, given in answers.items()},
    }
