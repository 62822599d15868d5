"""What every engine gives and is: hits and their order, two rankings fused into one, an engine's package imported."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

from glimmer_export.runtime.contract import MissingExtraError

__all__ = ["Hit", "HybridRetriever", "Retriever", "first_of_equals", "import_extra", "steady"]

MARGIN = 16
"""Hits asked for beyond those wanted, so that a tie at the end is seen."""
RANK_OFFSET = 60
DEPTH = 100
"""Ranks of each engine that are fused at least: a passage that both find late may still be among the first."""


@dataclass(frozen=True)
class Hit:
    """A retrieved passage: its number, and its score, where higher is better."""

    number: int
    score: float


class Retriever(Protocol):
    """Finds passages. Safe from several threads."""

    def search(self, question: str, top_k: int) -> list[Hit]:
        """The `top_k` passages that fit a question best, best first, of any text; a tie goes to the lower number."""
        ...


def steady(score: float) -> float:
    """A score to five digits: the order in which float32 terms were summed moves only those behind."""
    return float(f"{score:.5g}")


def first_of_equals(fetch: Callable[[int, int | None], list[Hit]], top_k: int) -> list[Hit]:
    """The `top_k` best hits of an engine that breaks ties as it pleases, with the lower number first among equals.

    `fetch` takes a limit and a number, and gives so many hits of the passages up to that number (None: of all), best
    first, or all there are. Equals are not fetched however many there are: those of the lowest numbers are looked for.
    """
    if top_k < 1:
        return []
    limit = top_k + MARGIN
    hits = fetch(limit, None)
    if len(hits) == limit and hits[-1].score == hits[top_k - 1].score:
        last = hits[-1].score
        hits = [hit for hit in hits if hit.score > last] + _lowest_equals(fetch, hits, top_k, limit)
    return sorted(hits, key=lambda hit: (-hit.score, hit.number))[:top_k]


def _lowest_equals(
    fetch: Callable[[int, int | None], list[Hit]], hits: list[Hit], top_k: int, limit: int
) -> list[Hit]:
    """Of the passages whose score is that of the last of `hits`, those of the lowest numbers, to make up `top_k`."""
    score = hits[-1].score
    wanted = top_k - sum(hit.score > score for hit in hits)
    known: set[int] = set()

    def learn(found: list[Hit]) -> bool:
        """Take note of the equals among them; whether there are no more."""
        known.update(hit.number for hit in found if hit.score == score)
        return len(found) < limit or found[-1].score < score

    learn(hits)
    below = -1  # fewer than are wanted have a number up to this one
    while not learn(fetch(limit, highest := sorted(known)[wanted - 1])):
        highest = sorted(known)[wanted - 1]
        middle = (below + highest) // 2
        learn(fetch(limit, middle))
        if sum(number <= middle for number in known) < wanted:
            below = middle
    return [Hit(number, score) for number in sorted(known)[:wanted]]


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


def import_extra(package: str, extra: str) -> Any:
    """Import a package; raises MissingExtraError if it is not installed."""
    try:
        return import_module(package)
    except ImportError:
        raise MissingExtraError(
            f"package {package}", expected="it installed for this kind of retrieval", found="none",
            fix=f'install its extra: pip install "glimmer-export[{extra}]"',
        ) from None
