"""Corpora of every format, read in parts: checked once from end to end, then again as often as a build needs them."""

from glimmer_export.exporter.memory.corpus.formats import FORMATS, CorpusSource, Paths
from glimmer_export.exporter.memory.corpus.scan import Corpus

__all__ = ["FORMATS", "Corpus", "CorpusSource", "Paths"]
