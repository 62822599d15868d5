"""What takes part: each answers the same batch of questions, and says where its time went if it can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from glimmer_export.exporter.bench.inputs import BenchQuestion

__all__ = ["Answered", "Contender", "ContenderSpec"]


@dataclass(frozen=True)
class Answered:
    """Answer tokens a question, and the milliseconds of each graph and of each step outside the graphs."""

    tokens: list[list[int]]
    graphs: dict[str, float] = field(default_factory=dict)
    host: dict[str, float] = field(default_factory=dict)


class Contender(Protocol):
    """One opened contender."""

    def answer(self, batch: Sequence[BenchQuestion]) -> Answered:
        """Answer a batch in one run, every answer of exactly as many tokens as the bench asks for."""
        ...


@dataclass(frozen=True)
class ContenderSpec:
    """What it takes to open a contender, here or in a process of its own.

    `library` is `session`, `hf` or `optimum`; `model` a bundle, a Hugging Face T5, or what optimum exported of it.
    `num_passages` are read; of them a session ranks all and reads `num_selected`.
    """

    key: str
    library: str
    model: Path
    store: Path | None
    num_passages: int
    num_selected: int | None
    answer_tokens: int
    threads: int
