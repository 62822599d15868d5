"""An exported variant's bundle with its table of ranges, made when first asked for."""

from __future__ import annotations

from pathlib import Path

from calibration.calibrate import CalibrationOptions
from calibration.questions import Question
from exporter.bundle.calibrate import calibrate_bundle
from tests.exported import QUESTIONS, Exported, copy_bundle

__all__ = ["calibrated"]


def calibrated(source: Exported) -> Path:
    """A copy of the variant's bundle, calibrated on all questions; read only."""

    def make(directory: Path) -> None:
        copy_bundle(source, directory / "bundle")
        questions = [Question(str(place), text, (), None, ()) for place, text in enumerate(QUESTIONS)]
        calibrate_bundle(directory / "bundle", source.store, questions, CalibrationOptions(threads=1))

    return source.once(f"{source.variant}, calibrated", make) / "bundle"
