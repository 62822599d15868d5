"""Corpus -> memory store: the build side of the pre-computed memory. Runs on devices without torch."""

from exporter.memory.build import BuildSummary, build_store
from exporter.memory.dense import DenseSummary, index_store

__all__ = ["BuildSummary", "DenseSummary", "build_store", "index_store"]
