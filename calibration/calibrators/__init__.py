"""Calibrators: from a tensor's range to the largest magnitude that its INT8 code is to hold."""

from glimmer_export.calibration.calibrators.contract import Calibrator, bounds
from glimmer_export.calibration.calibrators.lookup import METHODS, calibrator

__all__ = ["METHODS", "Calibrator", "bounds", "calibrator"]
