"""What waits to be answered, and which of it goes together: the oldest first, and with it what is most like it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import Condition

from glimmer_export.runtime.answer import Answer
from glimmer_export.runtime.candidates import Given

__all__ = ["Batch", "Job", "Line", "LineClosedError", "LineFullError", "Work", "choose"]


class LineFullError(Exception):
    """No more may wait."""


class LineClosedError(Exception):
    """Nothing more is taken."""


@dataclass(frozen=True)
class Work:
    """What must be equal for two questions to go in one batch."""

    ranks_only: bool = False
    top_k: int | None = None
    top_m: int | None = None


@dataclass(eq=False)
class Job:
    """One question that waits, or is being answered.

    `question_tokens` and `row_tokens` are what it takes of a batch, the latter with its passages, padded. What is told
    of it is told from the worker's thread: `on_text` of what its answer grows by (None: nobody wants to know), and
    `on_end`, once, of its answer or of what was raised. `is_wanted` says whether anybody still waits for it.
    """

    question: str
    passages: Sequence[Given] | None
    work: Work
    question_tokens: int
    row_tokens: int
    on_end: Callable[[Answer | Exception], None]
    is_wanted: Callable[[], bool] = lambda: True
    on_text: Callable[[str], None] | None = None
    since: float = field(default_factory=time.monotonic)


@dataclass(frozen=True)
class Batch:
    """Jobs that go together, the oldest first, and whether no further one of those that wait could."""

    jobs: Sequence[Job]
    is_full: bool
    taken: float = field(default_factory=time.monotonic)

    @property
    def padded_tokens(self) -> int:
        """Every row is as long as the longest."""
        return len(self.jobs) * max(job.row_tokens for job in self.jobs)


def choose(waiting: Sequence[Job], max_batch_tokens: int) -> Batch:
    """The oldest of those that wait, with as many as the tokens allow of those whose questions are nearest in length.

    The oldest is always among them, so that none waits for ever; one that takes more tokens than are allowed goes
    alone.
    """
    oldest = waiting[0]
    alike = [job for job in waiting[1:] if job.work == oldest.work]
    alike.sort(key=lambda job: abs(job.question_tokens - oldest.question_tokens))  # stable: of equals, the older first
    chosen, longest = [oldest], oldest.row_tokens
    for job in alike:
        longest = max(longest, job.row_tokens)
        if (len(chosen) + 1) * longest > max_batch_tokens:
            return Batch(chosen, is_full=True)
        chosen.append(job)
    return Batch(chosen, is_full=(len(chosen) + 1) * longest > max_batch_tokens)


class Line:
    """Jobs that wait, of any thread, for the one that takes them in batches.

    If the one that takes them is idle, it gets the first job at once. If jobs came while it was busy, it gets them
    when the oldest has waited for `window_s`, or when the batch is full: what arrives meanwhile goes with them.
    """

    def __init__(self, max_waiting: int, max_batch_tokens: int, window_s: float) -> None:
        self.max_waiting, self.max_batch_tokens = max_waiting, max_batch_tokens
        self._window_s = window_s
        self._changed = Condition()
        self._waiting: list[Job] = []
        self._closed = False

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, jobs: Sequence[Job]) -> None:
        """Have all of them wait, or none: raises LineFullError or LineClosedError."""
        with self._changed:
            if self._closed:
                raise LineClosedError
            if len(self._waiting) + len(jobs) > self.max_waiting:
                self._drop_unwanted()
            if len(self._waiting) + len(jobs) > self.max_waiting:
                raise LineFullError
            self._waiting += jobs
            self._changed.notify_all()

    def take(self) -> Batch | None:
        """The next batch, waiting for one; None if the line was closed and nothing waits any more."""
        with self._changed:
            self._drop_unwanted()
            was_busy = bool(self._waiting)
            while True:
                self._drop_unwanted()
                if not self._waiting:
                    if self._closed:
                        return None
                    was_busy = False
                    self._changed.wait()
                    continue
                batch = choose(self._waiting, self.max_batch_tokens)
                left_s = self._window_s - (time.monotonic() - batch.jobs[0].since)
                if not was_busy or batch.is_full or self._closed or left_s <= 0:
                    taken = {id(job) for job in batch.jobs}
                    self._waiting = [job for job in self._waiting if id(job) not in taken]
                    return batch
                self._changed.wait(left_s)

    def close(self) -> None:
        """Take nothing more; what waits is still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _drop_unwanted(self) -> None:
        self._waiting = [job for job in self._waiting if job.is_wanted()]
