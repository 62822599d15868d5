"""Whole questions in turn: every run of a bench lets each contender answer the same batch once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Protocol

import numpy as np

from glimmer_export.exporter.bench.inputs import BenchQuestion
from glimmer_export.runtime.contract import CPU_BACKEND

__all__ = ["Answered", "Contender", "ContenderSpec", "Samples", "interleaved", "measure", "percentile_95"]


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
    `num_passages` are read; of them a session ranks all and reads `num_selected`. `backend` runs a session's graphs.
    """

    key: str
    library: str
    model: Path
    store: Path | None
    num_passages: int
    num_selected: int | None
    answer_tokens: int
    threads: int
    backend: str = CPU_BACKEND


@dataclass(frozen=True)
class Samples:
    """One contender's counted runs: milliseconds from end to end, and what it said of its own time."""

    milliseconds: list[float] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """Median over runs."""
        return median(self.milliseconds)

    def stage(self, name: str) -> list[float]:
        """Milliseconds of a stage in every run."""
        return [answered.graphs.get(name, answered.host.get(name, 0.0)) for answered in self.answered]

    def outside_graphs(self) -> list[float]:
        """Milliseconds of every run that were spent outside the graphs."""
        pairs = zip(self.milliseconds, self.answered, strict=True)
        return [total - sum(answered.graphs.values()) for total, answered in pairs]


def interleaved(names: Sequence[str], runs: int) -> Iterator[tuple[int, str]]:
    """Run and contender, in the order they are measured.

    Each has one turn a run, in an order drawn anew, so that none always follows the same other's cache leavings.
    """
    drawn = np.random.default_rng(0)
    for run in range(runs):
        for place in drawn.permutation(len(names)):
            yield run, names[place]


def measure(
    contenders: Mapping[str, Contender],
    batches: Sequence[Sequence[BenchQuestion]],
    *,
    warmup: int,
    answer_tokens: int,
    between_runs: Callable[[], None] = lambda: None,
    advance: Callable[[str, int], None] = lambda *_: None,
) -> dict[str, Samples]:
    """Answer `batches[run]` with every contender, the first `warmup` runs uncounted.

    `between_runs` is called before each counted run, `advance(name, done)` before each turn.
    """
    samples = {name: Samples() for name in contenders}
    begun = -1
    for done, (run, name) in enumerate(interleaved(list(contenders), len(batches))):
        if run != begun and run >= warmup:
            between_runs()
        begun = run
        advance(name, done)
        started = time.perf_counter()
        answered = contenders[name].answer(batches[run])
        milliseconds = 1e3 * (time.perf_counter() - started)
        lengths = {len(tokens) for tokens in answered.tokens}
        if lengths != {answer_tokens}:
            raise RuntimeError(f"{name} answered with {sorted(lengths)} tokens instead of {answer_tokens}")
        if run >= warmup:
            samples[name].milliseconds.append(milliseconds)
            samples[name].answered.append(answered)
    return samples


def percentile_95(values: Sequence[float]) -> float:
    """The 95th percentile, interpolated."""
    return float(np.percentile(values, 95))
