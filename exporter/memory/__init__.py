"""Corpus -> memory store: the build side of the pre-computed memory. Runs on devices without torch."""

from exporter.memory.build import BuildSummary, build_store
from exporter.memory.convert import ConvertSummary, convert_store
from exporter.memory.corpus import CorpusSource

__all__ = ["BuildSummary", "ConvertSummary", "CorpusSource", "build_store", "convert_store"]
