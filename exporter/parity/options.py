"""How two sides are compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ParityOptions", "Progress", "no_progress"]

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Called with what a phase does and of how many questions; yields what to call with the number that came to be done."""


@dataclass(frozen=True)
class ParityOptions:
    """How to compare.

    `given_passages`: those of the question file, instead of retrieval; `top_k` and `top_m`: None for the manifest's;
    `batch_size`: questions of one run; `observed_runs`: runs of each graph that both sides repeat on the same inputs,
    of questions in even steps through all; `exact_memory`: a torch reference encodes its own memory in FP32 instead of
    reading a store's; `reference_store`: what the reference reads, None for the candidate's store; `attribution`: swap
    one part at a time; `threads` of one graph run, if no backend is given; `retrieval`: what finds the passages of
    both.
    """

    given_passages: bool = False
    top_k: int | None = None
    top_m: int | None = None
    batch_size: int = 8
    observed_runs: int = 8
    exact_memory: bool = False
    reference_store: Path | None = None
    attribution: bool = False
    threads: int | None = None
    retrieval: str = "bm25"


@contextmanager
def no_progress(_description: str, _total: int) -> Iterator[Callable[[int], None]]:
    """Tells nobody."""
    yield lambda _: None
