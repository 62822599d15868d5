"""(b) Every graph, engine against ONNX Runtime on the CPU, and the demo's answers from end to end."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from tests.gpu.backends import build_engines_here, open_backend
from tests.gpu.bundles import PRECISIONS, demo_model, threads
from tests.gpu.runner import Step
from tests.gpu.setting import Setting

__all__ = ["steps"]

SAME_QUESTIONS = 64
BATCH = 32


def steps(setting: Setting) -> list[Step]:
    """For each precision: beside the same graphs on the CPU, and beside the FP32 bundle on all questions."""
    found = [Step("model", 240, lambda _: demo_model(setting.work, setting.scale)[1])]
    for precision in PRECISIONS:
        engines = f"{precision}-engines"
        found += [
            Step(engines, 90, partial(_engines, setting, precision), needs=("model",)),
            Step(f"{precision}-same-graphs", 60, partial(_same, setting, precision), needs=(engines,)),
            Step(f"{precision}-answers", 120, partial(_answers, setting, precision), needs=(engines,)),
        ]
    return found


def _engines(setting: Setting, precision: str, _: Mapping[str, Any]) -> dict[str, Any]:
    model, _ = demo_model(setting.work, setting.scale)
    return build_engines_here(setting, model.bundle(precision))


def _same(setting: Setting, precision: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """The engines beside the very graphs they were built from: what the compiler and the GPU change."""
    questions = min(SAME_QUESTIONS, setting.scale.questions)
    return _compared(setting, precision, precision, questions, gate=False)


def _answers(setting: Setting, precision: str, _: Mapping[str, Any]) -> dict[str, Any]:
    """The engines beside the FP32 bundle: what a user gets, held against the gate."""
    return _compared(setting, precision, "fp32", setting.scale.questions, gate=True)


def _compared(setting: Setting, precision: str, reference: str, questions: int, *, gate: bool) -> dict[str, Any]:
    from dataclasses import replace

    from calibration.questions import read_questions
    from exporter.parity.compare import compare_with_bundle
    from exporter.parity.gate import judge, read_gate
    from exporter.parity.options import ParityOptions
    from runtime.backends import OnnxRuntimeBackend

    model, _ = demo_model(setting.work, setting.scale)
    options = ParityOptions(batch_size=min(BATCH, questions), threads=threads())
    with open_backend(setting, model.bundle(precision)) as backend:
        report = compare_with_bundle(
            model.bundle(precision), model.bundle(reference), model.store, read_questions(model.questions, questions),
            options, backend=backend, reference_backend=OnnxRuntimeBackend(threads()),
        )
    if gate:
        report = replace(report, gate=judge(*read_gate("default"), report))
    return report.to_json()
