"""A trace's runs replayed with a bundle of another size: what drafts save there, in decoding and in whole questions.

Drafts are kept or not as in the trace, whatever the weights at hand are: only the time of runs is measured.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean, median
from typing import TYPE_CHECKING, Any

import numpy as np

from glimmer_export.exporter.bench.contenders import BACKENDS
from glimmer_export.exporter.bench.draft_trace import DraftTrace, Run
from glimmer_export.exporter.bench.inputs import BenchQuestion
from glimmer_export.exporter.bench.load import Load, LoadWatch
from glimmer_export.exporter.bench.machine import describe_machine
from glimmer_export.exporter.bench.measure import ContenderSpec
from glimmer_export.exporter.bench.options import BenchOptions
from glimmer_export.exporter.bench.workplace import Notify, prepare
from glimmer_export.exporter.report.origin import utc_now
from glimmer_export.runtime import PassageId, Session
from glimmer_export.runtime.backends.registry import load_graphs, open_backend
from glimmer_export.runtime.bundle import Bundle
from glimmer_export.runtime.decode import Asked, SingleSteps
from glimmer_export.runtime.placement import Placement, placement_of
from glimmer_export.runtime.store import MemoryStore

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["DraftReport", "Replayed", "replay_trace"]

SECONDS = 60.0
"""Of each bundle, if no bound is given."""
INT8 = "int8"
LEAST = 8
"""Groups of questions that are replayed in any case."""
ASKED = 5
"""Questions whose other stages are timed."""


@dataclass(frozen=True)
class Replayed:
    """One bundle: milliseconds of decoding a group of questions, plain and with drafts, and of its other stages.

    `questions` of the trace were replayed in `groups` of the batch's size; the times are means over them, and `runs`
    the decoder's, plain and with drafts. `ratio` and `end_to_end` are plain over drafted.
    """

    questions: int
    groups: int
    runs: tuple[int, int]
    plain_ms: float
    drafted_ms: float
    other_ms: float

    @property
    def ratio(self) -> float:
        """Of decoding alone."""
        return self.plain_ms / self.drafted_ms

    @property
    def end_to_end(self) -> float:
        """Of whole questions."""
        return (self.other_ms + self.plain_ms) / (self.other_ms + self.drafted_ms)


@dataclass(frozen=True)
class DraftReport:
    """A trace's replay by bundle, where and when."""

    source: str
    draft_tokens: int
    tokens_a_run: float
    batch_size: int
    bundles: Mapping[str, Replayed]
    machine: Mapping[str, Any]
    date: str
    load: Load

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        found = {
            name: {**asdict(row), "ratio": row.ratio, "end_to_end": row.end_to_end}
            for name, row in self.bundles.items()
        }
        return {
            "source": self.source, "draft_tokens": self.draft_tokens, "tokens_a_run": self.tokens_a_run,
            "batch_size": self.batch_size, "bundles": found, "machine": dict(self.machine), "date": self.date,
            "load": self.load.to_json(),
        }

    def print(self, console: Console) -> None:
        """A table, and whether something else ran."""
        from rich.table import Table

        from glimmer_export.exporter.report.visible import visible

        table = Table(
            title=visible(
                f"{self.source}: drafts of {self.draft_tokens}, {self.tokens_a_run:.2f} tokens a run, "
                f"batch {self.batch_size}"
            )
        )
        for column in ("bundle", "questions", "runs", "decoding, ms", "with drafts", "ratio", "end to end"):
            table.add_column(column, justify="left" if column == "bundle" else "right")
        for name, row in self.bundles.items():
            table.add_row(
                name, str(row.questions), f"{row.runs[0]} -> {row.runs[1]}", f"{row.plain_ms:.1f}",
                f"{row.drafted_ms:.1f}", f"{row.ratio:.2f}x", f"{row.end_to_end:.2f}x",
            )
        console.print(table)
        if self.load.sentence:
            console.print(visible(self.load.sentence))


def replay_trace(
    options: BenchOptions, trace: DraftTrace, notify: Notify = lambda *_: None, *, watch: LoadWatch | None = None
) -> DraftReport:
    """Prepare our graphs of the options' size, in FP32 and, if it is among the peers, INT8, and replay a trace.

    Further bundles of the options are replayed too.

    A group of `batch_size` questions is decoded plain and with drafts in turn, from random states of the options'
    lengths. Raises as `run_bench`.
    """
    options = replace(options, peers=tuple(peer for peer in options.peers if peer == INT8))
    options.check()
    machine, date, watch = describe_machine(), utc_now(), watch or LoadWatch()
    place: AbstractContextManager[str] = (
        tempfile.TemporaryDirectory(prefix="glimmer-bench-") if options.work is None else nullcontext(str(options.work))
    )
    found: dict[str, Replayed] = {}
    with place as directory:
        prepared = prepare(options, Path(directory), notify)
        for number, spec in enumerate(prepared.specs):
            notify(f"Replaying with {spec.key}", number, len(prepared.specs))
            with watch.during(spec.key):
                found[spec.key] = _replayed(spec, options, trace, prepared.batches)
    load = watch.load(machine["load_average"], cpus=machine["cpus"], threads=options.num_threads)
    return DraftReport(
        trace.source, trace.draft_tokens, trace.tokens / trace.runs, options.batch_size, found, machine, date, load
    )


def _replayed(
    spec: ContenderSpec, options: BenchOptions, trace: DraftTrace, batches: Sequence[Sequence[BenchQuestion]]
) -> Replayed:
    size, positions = options.batch_size, 1 + trace.draft_tokens
    longest = max(sum(kept for _, kept in runs) for runs in trace.questions)
    with _opened(spec) as (place, session):
        other = _other_ms(session, spec, batches)
        asked = _asked(session.bundle, options, longest)
        for length in (1, positions, 1, positions):
            _decode(place, asked, [1, length, length])
        groups = [trace.questions[start : start + size] for start in range(0, len(trace.questions), size)]
        groups = [group for group in groups if len(group) == size] or [(trace.questions * size)[:size]]
        times: dict[bool, list[float]] = {False: [], True: []}
        counts = {False: 0, True: 0}
        bound, began, done = SECONDS if options.seconds is None else options.seconds, time.perf_counter(), 0
        order = np.random.default_rng(options.seed).permutation(len(groups)).tolist()
        for done, number in enumerate(order, start=1):  # how many there were
            for drafted in (False, True) if done % 2 else (True, False):
                lengths = _lengths(groups[number], drafted=drafted, positions=positions)
                started = time.perf_counter()
                _decode(place, asked, lengths)
                times[drafted].append(1e3 * (time.perf_counter() - started))
                counts[drafted] += len(lengths)
            if done >= LEAST and time.perf_counter() - began > bound:
                break
    return Replayed(
        done * size, done, (counts[False], counts[True]), fmean(times[False]), fmean(times[True]), other
    )


@contextmanager
def _opened(spec: ContenderSpec) -> Iterator[tuple[Placement, Session]]:
    """The decoder's graphs where they run, and a session of all that answers without drafts."""
    bundle = Bundle.open(spec.model)
    assert spec.store is not None
    assert bundle.text is not None
    backend = open_backend(BACKENDS[spec.engine], bundle.directory, threads=spec.threads)
    try:
        store = MemoryStore.open(spec.store, bundle)
        graphs = load_graphs(backend, bundle.directory, bundle.manifest, store.manifest.codec)
        session = Session(bundle, store, graphs, bundle.text, store.codec)
        try:
            yield placement_of(graphs), session
        finally:
            session.close()
    finally:
        backend.close()


def _other_ms(session: Session, spec: ContenderSpec, batches: Sequence[Sequence[BenchQuestion]]) -> float:
    """The median time of all stages but decoding, of a batch, warm."""
    found = []
    for number in range(1 + ASKED):
        batch = batches[number % len(batches)]
        passages = [[PassageId(place) for place in question.numbers[: spec.num_passages]] for question in batch]
        answers = session.answer_many([question.text for question in batch], None, spec.num_selected, passages=passages)
        for answer in answers:
            if answer.error is not None:
                raise answer.error
        times = answers[0].milliseconds
        found.append(times["total"] - times["decode"])
    return median(found[1:])


def _asked(bundle: Bundle, options: BenchOptions, longest: int) -> Asked:
    """Random states as long as what the decoder reads of a question, without padding."""
    shape = replace(bundle.manifest.model, max_new_tokens=longest)
    random = np.random.default_rng(options.seed)
    tokens = options.m * (options.question_tokens + options.passage_tokens)
    states = random.standard_normal((options.batch_size, tokens, shape.d_model), np.float32)
    mask = np.ones((options.batch_size, tokens), np.int32)
    return Asked(shape, states, mask, [[shape.decoder_start_token_id]] * options.batch_size, logits=False)


def _lengths(group: Sequence[Sequence[Run]], *, drafted: bool, positions: int) -> list[int]:
    """Positions of the runs until every question of a group has ended; one that has a draft decides for all."""
    if not drafted:
        return [1] * max(sum(kept for _, kept in runs) for runs in group)
    most = max(map(len, group))
    return [
        positions if any(place < len(runs) and runs[place][0] > 1 for runs in group) else 1 for place in range(most)
    ]


def _decode(place: Placement, asked: Asked, lengths: Sequence[int]) -> None:
    """Runs of so many positions, the first of one; each row goes on by one token, which costs what any number does."""
    steps = SingleSteps(place, asked)
    steps.next(1)
    batch = len(asked.prefixes)
    random = np.random.default_rng(0)
    for number, length in enumerate(lengths[1:], start=1):
        ids = random.integers(0, asked.shape.vocab_size, (batch, length)).astype(np.int32)
        steps.verify(ids, np.full(batch, min(number, asked.shape.cache_length - 1), np.int32))
