"""Corpus -> memory store: the build side of the pre-computed memory. Runs on devices without torch."""

from exporter.memory.build import BuildSummary, build_store

__all__ = ["BuildSummary", "build_store"]
