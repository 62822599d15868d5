"""From limits on time, bytes and exact match to a bundle and a store: which switches, and what they give."""

from glimmer_export.exporter.tune.goals import Goals
from glimmer_export.exporter.tune.report import TuneReport
from glimmer_export.exporter.tune.run import TuneRequest, tune

__all__ = ["Goals", "TuneReport", "TuneRequest", "tune"]
