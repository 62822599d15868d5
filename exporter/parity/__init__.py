"""Parity: does the bundle still give the checkpoint's answers."""

from exporter.parity.compare import ParityOptions, compare_with_checkpoint
from exporter.parity.report import ParityReport

__all__ = ["ParityOptions", "ParityReport", "compare_with_checkpoint"]
