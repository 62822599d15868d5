"""Parity: does the bundle still give the checkpoint's answers, and if not, which part of it costs them."""

from exporter.parity.compare import compare_with_bundle, compare_with_checkpoint
from exporter.parity.options import ParityOptions
from exporter.parity.report import ParityReport
from exporter.parity.run import ParityRequest, run_parity

__all__ = [
    "ParityOptions",
    "ParityReport",
    "ParityRequest",
    "compare_with_bundle",
    "compare_with_checkpoint",
    "run_parity",
]
