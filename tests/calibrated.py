"""An exported variant's bundle with its table of ranges, and quantised, made when first asked for."""

from __future__ import annotations

from pathlib import Path

from glimmer_export.calibration.calibrate import CalibrationOptions
from glimmer_export.calibration.questions import Question
from glimmer_export.exporter.bundle.calibrate import calibrate_bundle
from glimmer_export.exporter.bundle.quantize import QuantizeOptions, quantize_bundle
from tests.exported import QUESTIONS, Exported, copy_bundle

__all__ = ["calibrated", "quantized"]


def calibrated(source: Exported) -> Path:
    """A copy of the variant's bundle, calibrated on all questions; read only."""

    def make(directory: Path) -> None:
        copy_bundle(source, directory / "bundle")
        questions = [Question(str(place), text, (), None, ()) for place, text in enumerate(QUESTIONS)]
        calibrate_bundle(directory / "bundle", source.store, questions, CalibrationOptions(threads=1))

    return source.once(f"{source.variant}, calibrated", make) / "bundle"


def quantized(source: Exported, precision: str) -> Path:
    """The variant's calibrated bundle in a precision for TensorRT; read only."""

    def make(directory: Path) -> None:
        quantize_bundle(calibrated(source), directory / "bundle", QuantizeOptions(precision, "tensorrt"))

    return source.once(f"{source.variant}, {precision}", make) / "bundle"
