"""Engines that find passages for a question: BM25 by SQLite or tantivy, vectors by faiss, and two of them fused."""

from glimmer_export.runtime.retrieval.hits import Hit, Retriever

__all__ = ["Hit", "Retriever"]
