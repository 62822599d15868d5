"""The one thread that asks the session: a batch after the other, and each answer goes out as soon as it is there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from threading import Event, Thread

from glimmer_export.runtime.answer import Answer
from glimmer_export.runtime.contract import DeviceLostError
from glimmer_export.runtime.serving.batching import Batch, Job, Line
from glimmer_export.runtime.session import Session

__all__ = ["Worker"]

logger = logging.getLogger(__name__)


class Worker:
    """Answers what waits in a line. `mass` is that of `Session.answer`.

    `on_batch` is told of a batch that is done, and of its milliseconds by stage.
    """

    def __init__(
        self, session: Session, line: Line, mass: float | None = None,
        on_batch: Callable[[Batch, Mapping[str, float]], None] = lambda batch, milliseconds: None,
    ) -> None:
        self._session, self._line, self._mass, self._on_batch = session, line, mass, on_batch
        self._thread = Thread(target=self._run, name="glimmer-serve", daemon=True)
        self.is_warm = Event()
        self.failure: Exception | None = None
        """What the session raised as it was warmed up or its device was lost, or a bug that ended the thread."""
        self.on_failure: Callable[[], None] = lambda: None
        """Called then."""
        self.batch_seconds = 0.0
        """What a batch took of late."""

    def start(self) -> None:
        """Warm the session up, then take batches."""
        self._thread.start()

    def stop(self) -> None:
        """Answer what waits, and end."""
        self._line.close()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._session.warm_up()
            self.is_warm.set()
            while (batch := self._line.take()) is not None:
                milliseconds = self._answer(batch.jobs)
                seconds = time.monotonic() - batch.taken
                self.batch_seconds = seconds if not self.batch_seconds else 0.8 * self.batch_seconds + 0.2 * seconds
                self._on_batch(batch, milliseconds)
        except Exception as error:  # noqa: BLE001  # whatever it is, another thread tells it
            self.failure = error
            self.on_failure()

    def _answer(self, jobs: Sequence[Job]) -> Mapping[str, float]:
        """Answer jobs together; where that fails, each alone, so that one cannot fail another.

        Not so one whose answer has begun to be told: it would be told again. Returns the milliseconds by stage, none if
        it failed.
        """
        left = dict(enumerate(jobs))
        begun: set[int] = set()

        def end(index: int, answer: Answer) -> None:
            job = left.pop(index)
            job.on_end(answer if answer.error is None else answer.error)

        def tell(index: int, text: str) -> None:
            if (on_text := jobs[index].on_text) is not None:
                begun.add(index)
                on_text(text)

        try:
            return self._ask(jobs, end, tell if any(job.on_text is not None for job in jobs) else None)
        except Exception as error:  # noqa: BLE001  # it is whoever's who asked
            if isinstance(error, DeviceLostError):
                self.failure = error
                self.on_failure()
            if len(jobs) == 1 or isinstance(error, DeviceLostError):
                for job in left.values():
                    job.on_end(error)
                return {}
            logger.warning("a batch of %d failed by %s; each is asked alone", len(jobs), type(error).__name__)
            for index, job in left.items():
                if index in begun:
                    job.on_end(error)
                else:
                    self._answer([job])
            return {}

    def _ask(
        self, jobs: Sequence[Job], end: Callable[[int, Answer], None], tell: Callable[[int, str], None] | None
    ) -> Mapping[str, float]:
        work, questions = jobs[0].work, [job.question for job in jobs]
        if work.ranks_only:
            ranked = self._session.rank_many(questions, [job.passages or () for job in jobs])
            for index, answer in enumerate(ranked):
                end(index, answer)
            return ranked[0].milliseconds
        answers = self._session.answer_many(
            questions, work.top_k, work.top_m, mass=self._mass, passages=[job.passages for job in jobs], on_token=tell,
            on_answer=end,
        )
        return answers[0].milliseconds
