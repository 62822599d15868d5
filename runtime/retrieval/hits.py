"""What every engine gives, and what every engine is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Hit", "Retriever", "first_of_equals", "steady"]

MARGIN = 16
"""Hits asked for beyond those wanted, so that a tie at the end is seen."""


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


def first_of_equals(fetch: Callable[[int], list[Hit]], top_k: int) -> list[Hit]:
    """The `top_k` best hits of an engine that breaks ties as it pleases, with the lower number first among equals.

    `fetch` gives as many hits as it is asked for, best first, or all there are.
    """
    if top_k < 1:
        return []
    limit = top_k + MARGIN
    while len(hits := fetch(limit)) == limit and hits[-1].score == hits[top_k - 1].score:
        limit *= 4
    return sorted(hits, key=lambda hit: (-hit.score, hit.number))[:top_k]
