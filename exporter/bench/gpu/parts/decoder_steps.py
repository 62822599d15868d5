"""One decoder step at xl and xxl width, in both forms, as many layers as fit the time, against its bandwidth floor."""

from __future__ import annotations

import traceback
from collections.abc import Mapping
from functools import partial
from statistics import median
from typing import Any

from glimmer_export.exporter.bench.gpu.backends import build_engines_here, described, working
from glimmer_export.exporter.bench.gpu.bundles import Model, random_model, random_questions_of
from glimmer_export.exporter.bench.gpu.floors import run_floors
from glimmer_export.exporter.bench.gpu.ours import AT_ONCE, Ours, error_line
from glimmer_export.exporter.bench.gpu.runner import Step
from glimmer_export.exporter.bench.gpu.setting import SHIPPED, Setting
from glimmer_export.exporter.bench.gpu.timing import interleaved_ms, spread
from glimmer_export.runtime.contract import (
    CROSS_ATTENTION_FORMS,
    DECODER_STEP,
    read_manifest,
)

__all__ = ["GRAPH", "INPUT_SETS", "PRECISION", "steps", "thin_model"]

PRECISION = "fp16"
GRAPH = DECODER_STEP
INPUT_SETS = 2
"""A step reads its weights, far more than any cache holds. A loop of steps goes on from the first."""


def steps(setting: Setting) -> list[Step]:
    """For each size and form of the cross-attention: the model, and the step by every engine that may work here."""
    found = []
    for size, layers in setting.scale.step_layers:
        for form in CROSS_ATTENTION_FORMS:
            of = (setting, size, layers, form)
            found += [
                Step(f"{size}-{form}-model", 240, partial(_export, *of)),
                Step(f"{size}-{form}-step", 120, partial(_step, *of), needs=(f"{size}-{form}-model",)),
            ]
    return found


def thin_model(setting: Setting, size: str, layers: int, form: str) -> Model:
    """The model whose step is measured."""
    return _model(setting, size, layers, form)[0]


def _model(setting: Setting, size: str, layers: int, form: str) -> tuple[Model, dict[str, float]]:
    return random_model(
        setting.work, size, setting.scale, tiny=setting.rehearsal, decoder_layers=layers, form=form
    )


def _export(setting: Setting, size: str, layers: int, form: str, _: Mapping[str, Any]) -> dict[str, float]:
    """Seconds it took."""
    return _model(setting, size, layers, form)[1]


def _step(setting: Setting, size: str, layers: int, form: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """Median of a step, run after run, by engine; its share of the floor is floor / median.

    `engine`, and with it `of_bandwidth_floor`, is the best of those that users have.
    """
    model = thin_model(setting, size, layers, form)
    floor = run_floors(read_manifest(model.bundle(PRECISION)), setting.scale)[GRAPH]
    engines: dict[str, Any] = {}
    for engine in working(setting):
        try:
            build_engines_here(setting, engine, model, PRECISION)
            with Ours.open(setting, engine, model, PRECISION) as ours:
                inputs = ours.record(random_questions_of(model, setting.scale, INPUT_SETS, seed=6))[GRAPH]
                times = interleaved_ms({engine: ours.alone(GRAPH, inputs)}, repeats=setting.scale.stage_repeats)
        except Exception as error:  # noqa: BLE001  (the others are measured all the same)
            traceback.print_exc()
            engines[described(engine, PRECISION)] = {"error": error_line(error)}
            continue
        per_run = [value / AT_ONCE for value in times[engine]]
        share = floor["bandwidth_ms"] / median(per_run)
        engines[described(engine, PRECISION)] = {**spread(per_run), "of_bandwidth_floor": share}
    shares = {engine: row["of_bandwidth_floor"] for engine, row in engines.items() if "error" not in row}
    shipped = [engine for engine in shares if engine in SHIPPED]
    best = max(shipped, key=lambda engine: shares[engine], default=None)
    return {
        "layers": layers, "form": form, "precision": PRECISION, **floor, "engines": engines, "engine": best,
        "of_bandwidth_floor": None if best is None else shares[best],
    }  # fmt: skip
