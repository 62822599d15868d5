"""Every graph on an engine against ONNX Runtime on the CPU, and the demo's answers from end to end."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from glimmer_export.exporter.bench.gpu.backends import build_engines_here, import_onnxruntime, open_backend, required
from glimmer_export.exporter.bench.gpu.bundles import PRECISIONS, demo_model, threads
from glimmer_export.exporter.bench.gpu.runner import Step
from glimmer_export.exporter.bench.gpu.setting import ORT_CUDA, Setting

__all__ = ["steps"]

SAME_QUESTIONS = 64
BATCH = 32


def steps(setting: Setting, engine: str) -> list[Step]:
    """For each precision: beside the same graphs on the CPU, and beside the FP32 bundle on all questions."""
    found = [
        Step("runs", 5, lambda _: required(setting, engine)),
        Step("model", 240, lambda _: demo_model(setting.work, setting.scale)[1], needs=("runs",)),
    ]
    for precision in PRECISIONS:
        engines = f"{precision}-engines"
        found += [
            Step(engines, 90, partial(_engines, setting, engine, precision), needs=("model",)),
            Step(f"{precision}-same-graphs", 60, partial(_same, setting, engine, precision), needs=(engines,)),
            Step(f"{precision}-answers", 120, partial(_answers, setting, engine, precision), needs=(engines,)),
        ]
    return found


def _engines(setting: Setting, engine: str, precision: str, _: Mapping[str, Any]) -> dict[str, Any]:
    model, _ = demo_model(setting.work, setting.scale)
    return build_engines_here(setting, engine, model, precision)


def _same(setting: Setting, engine: str, precision: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """The engines beside the very graphs they were built from: what the compiler and the GPU change."""
    questions = min(SAME_QUESTIONS, setting.scale.questions)
    return _compared(setting, engine, precision, precision, questions, gate=False)


def _answers(setting: Setting, engine: str, precision: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """The engines beside the FP32 bundle: what a user gets, held against the gate."""
    return _compared(setting, engine, precision, "fp32", setting.scale.questions, gate=True)


def _compared(
    setting: Setting, engine: str, precision: str, reference: str, questions: int, *, gate: bool
) -> dict[str, Any]:
    if engine == ORT_CUDA and not setting.rehearsal:
        import_onnxruntime(setting)
    from dataclasses import replace

    from glimmer_export.calibration.questions import read_questions
    from glimmer_export.exporter.parity.compare import compare_with_bundle
    from glimmer_export.exporter.parity.gate import judge, read_gate
    from glimmer_export.exporter.parity.options import ParityOptions
    from glimmer_export.runtime.backends import OnnxRuntimeBackend

    model, _ = demo_model(setting.work, setting.scale)
    options = ParityOptions(batch_size=min(BATCH, questions), threads=threads())
    with open_backend(setting, engine, model, precision) as backend:
        report = compare_with_bundle(
            model.bundle(precision), model.bundle(reference), model.store, read_questions(model.questions, questions),
            options, backend=backend, reference_backend=OnnxRuntimeBackend(threads()),
        )
    if gate:
        report = replace(report, gate=judge(*read_gate("default"), report))
    return {"engine": engine, **report.to_json()}
