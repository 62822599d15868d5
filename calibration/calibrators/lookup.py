"""Calibrators by name."""

from __future__ import annotations

from calibration.calibrators.contract import Calibrator
from calibration.calibrators.entropy import EntropyCalibrator
from calibration.calibrators.maximum import MaxCalibrator
from calibration.calibrators.mse import MseCalibrator
from calibration.calibrators.percentile import PercentileCalibrator
from runtime.contract import OptionError

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
