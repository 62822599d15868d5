"""One request's side of its questions: they wait in the line, and what comes of them arrives as events."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from functools import partial

from starlette.requests import Request

from glimmer_export.runtime.answer import Answer
from glimmer_export.runtime.candidates import Given
from glimmer_export.runtime.contract import OptionError
from glimmer_export.runtime.serving.batching import Job, Line, LineClosedError, LineFullError, Work
from glimmer_export.runtime.serving.errors import ServingError, shutting_down
from glimmer_export.runtime.serving.worker import Worker
from glimmer_export.runtime.session import Session

__all__ = ["Asked", "ClientLeftError", "Desk", "Told"]


class ClientLeftError(Exception):
    """Nobody is there any more to be told."""


@dataclass(frozen=True)
class Asked:
    """A question, and the passages that take the retrieval's place."""

    question: str
    passages: Sequence[Given] | None = None


@dataclass(frozen=True)
class Told:
    """Of the question at `index`: what its answer has grown by, or all of it."""

    index: int
    text: str = ""
    answer: Answer | None = None


class Desk:
    """Takes the questions of requests to the worker."""

    def __init__(self, session: Session, line: Line, worker: Worker, timeout_s: float) -> None:
        self._session, self._line, self._worker, self._timeout_s = session, line, worker, timeout_s
        self._shape = session.bundle.manifest.model

    async def ask(
        self, request: Request, asked: Sequence[Asked], work: Work, *, stream: bool = False
    ) -> AsyncIterator[Told]:
        """What is told of the questions, to the answer of each; with `stream`, of their texts as they grow.

        Raises what was raised of one of them; ServingError 429 if too many wait, 503 if the server stops, 504 if it
        takes too long; ClientLeftError. However it ends, what is left of the questions is not answered any more.
        """
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Told | Exception] = asyncio.Queue()
        open_ = True

        def put(event: Told | Exception) -> None:
            try:
                loop.call_soon_threadsafe(events.put_nowait, event)
            except RuntimeError:  # the loop was closed: nobody is there to be told
                return

        def end(index: int, result: Answer | Exception) -> None:
            put(Told(index, answer=result) if isinstance(result, Answer) else result)

        def grow(index: int, text: str) -> None:
            put(Told(index, text))

        jobs = [
            self._job(
                item, work, on_end=partial(end, index), on_text=partial(grow, index) if stream else None,
                is_wanted=lambda: open_,
            )
            for index, item in enumerate(asked)
        ]
        self._wait_in_line(jobs)
        timer = loop.call_later(self._timeout_s, events.put_nowait, self._too_late())
        leaving = loop.create_task(_until_left(request, events))
        try:
            missing = len(jobs)
            while missing:
                event = await events.get()
                if isinstance(event, Exception):
                    raise event
                missing -= event.answer is not None
                yield event
        finally:
            open_ = False
            timer.cancel()
            leaving.cancel()

    def _job(self, item: Asked, work: Work, **told: object) -> Job:
        """Raises QuestionError for a question that cannot be taken, OptionError for one without passages to read."""
        shape = self._shape
        if item.passages is None and self._session.store is None:
            raise OptionError(
                "passages", expected="some to read, as this server has no store", found="none", fix="send them along"
            )
        tokens = len(self._session.text.question(item.question))
        if work.ranks_only:
            num_passages = len(item.passages or ())
        else:
            given = work.top_k or shape.num_retrieved
            num_passages = given if item.passages is None else len(item.passages[: work.top_k])
        row_tokens = max(1, num_passages) * (tokens + shape.passage_length)
        return Job(item.question, item.passages, work, tokens, row_tokens, **told)  # type: ignore[arg-type]

    def _wait_in_line(self, jobs: Sequence[Job]) -> None:
        if len(jobs) > self._line.max_waiting:  # no later time would be a better one
            raise ServingError(400, "InvalidRequest", f"question: at most {self._line.max_waiting} wait on this server")
        try:
            self._line.put(jobs)
        except LineFullError:
            per_batch = max(1, self._line.max_batch_tokens // max(job.row_tokens for job in jobs))
            seconds = self._worker.batch_seconds * len(self._line) / per_batch
            raise ServingError(
                429, "TooManyRequests", "too many questions wait; ask again later",
                retry_after_s=max(1, math.ceil(seconds)),
            ) from None
        except LineClosedError:
            raise shutting_down() from None

    def _too_late(self) -> ServingError:
        return ServingError(504, "Timeout", f"no answer within {self._timeout_s:g} s")


async def _until_left(request: Request, events: asyncio.Queue[Told | Exception]) -> None:
    """Say when the client has closed the connection; the body has been read by then."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    events.put_nowait(ClientLeftError())
