"""The INT8 contender: our graphs, calibrated on questions of their own and quantised for this machine's CPU."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from glimmer_export.calibration.calibrate import CalibrationOptions
from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.bench.inputs import BenchQuestion
from glimmer_export.exporter.bundle.calibrate import calibrate_bundle
from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from glimmer_export.runtime.contract import read_manifest

__all__ = ["CALIBRATION_QUESTIONS", "int8_bundle"]

CALIBRATION_QUESTIONS = 4
"""Random weights and tokens have no rare outliers; a real model is calibrated on more."""


def int8_bundle(bundle: Path, store: Path, questions: Sequence[BenchQuestion], output: Path, *, threads: int) -> Path:
    """Quantise `bundle` into `output` by the default policy, both kept for the next bench."""
    if not output.exists():
        if not read_manifest(bundle).calibration:
            rows = [Question(str(place), item.text, (), item.numbers, ()) for place, item in enumerate(questions)]
            options = CalibrationOptions(samples=len(rows), given=True, passages_per_question=3, threads=threads)
            calibrate_bundle(bundle, store, rows, options)
        quantize_bundle(bundle, output, QuantizeOptions("int8", "cpu"))
    return output
