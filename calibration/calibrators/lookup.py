"""Calibrators by name."""

from __future__ import annotations

from glimmer_export.calibration.calibrators.contract import Calibrator
from glimmer_export.calibration.calibrators.entropy import EntropyCalibrator
from glimmer_export.calibration.calibrators.maximum import MaxCalibrator
from glimmer_export.calibration.calibrators.mse import MseCalibrator
from glimmer_export.calibration.calibrators.percentile import PercentileCalibrator
from glimmer_export.runtime.contract import OptionError

__all__ = ["METHODS", "calibrator"]

CALIBRATORS: tuple[Calibrator, ...] = (MaxCalibrator(), PercentileCalibrator(), EntropyCalibrator(), MseCalibrator())
METHODS = tuple(method.name for method in CALIBRATORS)
"""Names of the calibrators."""


def calibrator(name: str) -> Calibrator:
    """The calibrator of a name; raises OptionError where there is none."""
    for method in CALIBRATORS:
        if method.name == name:
            return method
    raise OptionError("--method", expected=f"one of {', '.join(METHODS)}", found=name, fix="choose one of them")
