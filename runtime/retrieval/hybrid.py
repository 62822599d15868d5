"""Two rankings made one by reciprocal rank fusion (Cormack, Clarke, Büttcher 2009): scores need not compare."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from glimmer_export.runtime.retrieval.hits import Hit, Retriever

__all__ = ["HybridRetriever", "fuse"]

RANK_OFFSET = 60
DEPTH = 100
"""Ranks of each engine that are fused at least: a passage that both find late may still be among the first."""


class HybridRetriever:
    """Asks several engines and fuses what they find."""

    def __init__(self, retrievers: Sequence[Retriever]) -> None:
        self._retrievers = tuple(retrievers)

    def search(self, question: str, top_k: int) -> list[Hit]:
        """The `top_k` passages of the highest fused score; a tie goes to the lower number."""
        if top_k < 1:
            return []
        depth = max(top_k, DEPTH)
        return fuse([retriever.search(question, depth) for retriever in self._retrievers], top_k)


def fuse(rankings: Sequence[Sequence[Hit]], top_k: int) -> list[Hit]:
    """Reciprocal rank fusion: a passage's score is the sum over rankings of 1 / (60 + its rank), ranks from 1."""
    scores: dict[int, float] = defaultdict(float)
    for ranking in rankings:
        for rank, hit in enumerate(ranking, start=1):
            scores[hit.number] += 1 / (RANK_OFFSET + rank)
    best = sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:top_k]
    return [Hit(number, score) for number, score in best]
