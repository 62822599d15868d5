"""Calibrators: from a tensor's range to the largest magnitude that its INT8 code is to hold."""

from calibration.calibrators.contract import Calibrator, bounds
from calibration.calibrators.lookup import METHODS, calibrator

__all__ = ["METHODS", "Calibrator", "bounds", "calibrator"]
