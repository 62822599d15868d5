"""Parity: does the bundle still give the checkpoint's answers, and if not, which part of it costs them."""

from glimmer_export.exporter.parity.compare import compare_with_bundle, compare_with_checkpoint
from glimmer_export.exporter.parity.options import ParityOptions
from glimmer_export.exporter.parity.report import ParityReport
from glimmer_export.exporter.parity.run import ParityRequest, run_parity

__all__ = [
    "ParityOptions",
    "ParityReport",
    "ParityRequest",
    "compare_with_bundle",
    "compare_with_checkpoint",
    "run_parity",
]
