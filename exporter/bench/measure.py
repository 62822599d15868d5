"""Whole questions in blocks: a contender answers for seconds on end before it is another's turn.

One question between those of peers is no measurement: it begins with the caches, the threads and the clock as the peer
has left them, and took 1,353 ms where it takes 813 back to back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from itertools import cycle, groupby
from operator import itemgetter
from pathlib import Path
from statistics import median
from typing import Protocol

import numpy as np

from glimmer_export.exporter.bench.inputs import BenchQuestion
from glimmer_export.exporter.bench.roster import ORT, OURS

__all__ = [
    "Answered", "BlockPlan", "Contender", "ContenderSpec", "Samples", "interleaved", "measure", "percentile_95",
]  # fmt: skip


@dataclass(frozen=True)
class Answered:
    """Answer tokens a question, and the milliseconds of each graph and of each step outside the graphs.

    Whoever only ranks has no tokens but scores, one a passage of each question.
    """

    tokens: list[list[int]]
    graphs: dict[str, float] = field(default_factory=dict)
    host: dict[str, float] = field(default_factory=dict)
    scores: list[list[float]] | None = None


class Contender(Protocol):
    """One opened contender."""

    def answer(self, batch: Sequence[BenchQuestion]) -> Answered:
        """Answer or rank a batch in one run, every answer of exactly as many tokens as the bench asks for."""
        ...


@dataclass(frozen=True)
class ContenderSpec:
    """What it takes to open a contender, here or in a process of its own.

    `form`, `engine` and `precision` are a peer's; `model` is a bundle, a Hugging Face T5, or where a peer's graphs are.
    `num_passages` are read; of them a session, which has a `store`, ranks all and reads `num_selected`.
    """

    key: str
    model: Path
    store: Path | None
    num_passages: int
    num_selected: int | None
    answer_tokens: int
    threads: int
    form: str = OURS
    engine: str = ORT
    precision: str = "fp32"


@dataclass(frozen=True)
class BlockPlan:
    """How contenders take turns: `blocks` each, of questions back to back, in an order drawn anew in every round.

    Of a block the first `warmup` batches are not counted, and those that are take at least `seconds` together; one is
    counted in any case. With `budget_seconds`, no round is begun after the first that would not end within them.
    """

    blocks: int
    seconds: float
    warmup: int = 1
    budget_seconds: float | None = None


@dataclass(frozen=True)
class Samples:
    """One contender's counted batches: milliseconds from end to end, and what it said of its own time.

    `places` are those of the batches among all, `block_sizes` how many were counted of each block. `first_ms` are the
    first of each block, which were not counted; the very first is the contender's first answer in this process.
    """

    milliseconds: list[float] = field(default_factory=list)
    answered: list[Answered] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    block_sizes: list[int] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """Median over counted batches."""
        return median(self.milliseconds)

    @property
    def min_ms(self) -> float:
        """The fastest counted batch."""
        return min(self.milliseconds)

    @property
    def cold_ms(self) -> float:
        """The very first batch."""
        return self.first_ms[0]

    def stage(self, name: str) -> list[float]:
        """Milliseconds of a stage in every counted batch."""
        return [answered.graphs.get(name, answered.host.get(name, 0.0)) for answered in self.answered]

    def outside_graphs(self) -> list[float]:
        """Milliseconds of every counted batch that were spent outside the graphs."""
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
    plan: BlockPlan,
    *,
    answer_tokens: int,
    watch: Callable[[str], AbstractContextManager[object]] = lambda _: nullcontext(),
    between_rounds: Callable[[], None] = lambda: None,
    advance: Callable[[str, int], None] = lambda *_: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Samples]:
    """Let the contenders answer in blocks; the blocks of a round begin with the same batch and go round through all.

    `watch(name)` is entered for each block, `between_rounds` called before each round, and `advance(name, blocks done)`
    before each block; `clock` gives seconds. Raises RuntimeError for an answer that is not of `answer_tokens` tokens.
    """
    samples = {name: Samples() for name in contenders}
    begun, longest, done = clock(), 0.0, 0
    for number, turns in groupby(interleaved(list(contenders), plan.blocks), key=itemgetter(0)):
        started = clock()
        if number and plan.budget_seconds is not None and started + longest > begun + plan.budget_seconds:
            break
        between_rounds()
        for _, name in turns:
            advance(name, done)
            with watch(name):
                answer = _checked(contenders[name], name, answer_tokens)
                _block(answer, batches, number, plan, samples[name], clock)
            done += 1
        longest = max(longest, clock() - started)
    return samples


def _block(
    answer: Callable[[Sequence[BenchQuestion]], Answered],
    batches: Sequence[Sequence[BenchQuestion]],
    number: int,
    plan: BlockPlan,
    samples: Samples,
    clock: Callable[[], float],
) -> None:
    """Block `number` of one contender."""
    places = cycle([(number + place) % len(batches) for place in range(len(batches))])
    for turn in range(plan.warmup):
        started = clock()
        answer(batches[next(places)])
        if turn == 0:
            samples.first_ms.append(1e3 * (clock() - started))
    counted, begun = 0, clock()
    while counted == 0 or clock() - begun < plan.seconds:
        place = next(places)
        started = clock()
        answered = answer(batches[place])
        samples.milliseconds.append(1e3 * (clock() - started))
        samples.answered.append(answered)
        samples.places.append(place)
        counted += 1
    samples.block_sizes.append(counted)


def _checked(
    contender: Contender, name: str, answer_tokens: int
) -> Callable[[Sequence[BenchQuestion]], Answered]:
    def answer(batch: Sequence[BenchQuestion]) -> Answered:
        answered = contender.answer(batch)
        if answered.scores is not None:
            return answered
        lengths = {len(tokens) for tokens in answered.tokens}
        if lengths != {answer_tokens}:
            raise RuntimeError(f"{name} answered with {sorted(lengths)} tokens instead of {answer_tokens}")
        return answered

    return answer


def percentile_95(values: Sequence[float]) -> float:
    """The 95th percentile, interpolated."""
    return float(np.percentile(values, 95))
